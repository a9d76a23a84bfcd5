"""What layers could become, and the samples with which that is found out."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.prospects import cut, ladders_of, parted, timings_of
from onnxpress.passes.report import Report
from onnxpress.rewriter.sites import find_sites

NAMES = ("svd", "channel", "spatial")


def reasons(report):
    return {skip.site: skip.reason for skip in report.skips}


def test_matrices_have_one_way_and_kernels_more(layers):
    found = ladders_of(layers, find_sites(layers), NAMES, Report("test"))
    assert {site.name: [each.scheme.name for each in some] for site, some in found.items()} == {
        "conv": ["channel", "spatial"],
        "low": ["svd"],
        "full": ["svd"],
    }


def test_only_ranks_that_are_faster_alone_are_left(layers, samples, clock):
    clock(alone=lambda model: 1.0 + sum(site.size > 4000 for site in find_sites(model)))
    report = Report("test")
    ladders = ladders_of(layers, find_sites(layers), NAMES, report)
    timings = timings_of(layers, ladders, samples, report)
    assert [site.name for site in ladders] == [site.name for site in timings] == ["low"]
    assert reasons(report)["full"].startswith("no chain is faster alone: the fastest, 'svd', is 1.00 times as fast")


def test_what_runs_in_a_branch_is_skipped(build, bench, clock):
    clock()
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("a", "b")]
    inside = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["a"], name="inside")], "then", [], ends[:1])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "else", [], ends[1:])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["condition"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["condition"], ["y"], then_branch=inside, else_branch=other),
    ]
    model = build(nodes, {"w": weight}, x=("n", 64))
    report = Report("test")
    ladders = ladders_of(model, find_sites(model), NAMES, report)
    assert not timings_of(model, ladders, bench(model, np.ones((2, 64), np.float32)), report)
    assert reasons(report) == {
        "inside": "it runs inside a branch or a loop, where activations cannot be observed",
    }


@pytest.mark.parametrize(("count", "judged"), [(8, 2), (2, 1), (5, 1)])
def test_samples_that_judge_do_not_teach(layers, count, judged):
    batches = [{"x": np.full((4, 8, 6, 6), number, np.float32)} for number in range(count)]
    bench = Workbench(feed=open_feed(batches, inputs=layers.inputs))
    teach, judge = ({float(each["x"][0, 0, 0, 0]) for each in part.feed} for part in parted(bench, Report("test")))
    assert len(judge) == judged
    assert teach | judge == set(map(float, range(count)))
    assert not teach & judge


def test_a_feed_of_unknown_length_is_parted_too(layers):
    batches = [{"x": np.full((4, 8, 6, 6), number, np.float32)} for number in range(8)]
    feed = open_feed(batches, inputs=layers.inputs)
    unknown = Feed(list(feed.samples()))
    teach, judge = parted(Workbench(feed=unknown), Report("test"))
    assert (sum(1 for _ in teach.feed), sum(1 for _ in judge.feed)) == (6, 2)


def test_batches_are_cut_for_timing(layers, samples):
    assert cut(samples, None) is samples.feed
    assert {batch["x"].shape for batch in cut(samples, 5)} == {(5, 8, 6, 6)}
    assert cut(Workbench(), 5) is None
