"""Positions of kernels that go for all filters, what is measured of that, and what is left alone."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes import stopwatch
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.lattices import bounding
from onnxpress.passes.pace import Pace
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.positions import rewriting
from onnxpress.passes.prune.positions.positions import PrunePositions
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def clock(monkeypatch):
    """Sets how many times as fast each other way, and the whole model, is measured to be."""

    def set_to(alone: float, whole: float | list[float] = 2.0) -> list[tuple[int, ...]]:
        shapes = []

        def in_turns(runners, batches, *, seconds, rounds):
            shapes.append(batches[0]["x"].shape)
            for runner in runners:
                runner.run(batches[0])
            return np.array([[1.0, *[1 / alone] * (len(runners) - 1)]] * 4)

        monkeypatch.setattr(stopwatch, "in_turns", in_turns)
        speeds = whole if isinstance(whole, list) else [whole] * 3
        paces = [Pace(each, (each, each)) for each in speeds]
        monkeypatch.setattr(rewriting, "pace", lambda model, others, bench: paces[: len(others)])
        return shapes

    return set_to


@pytest.fixture
def pair(build, random):
    """A Conv and a depthwise one behind it, and samples."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "bias"], ["t"], name="full", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Conv", ["u", "b"], ["y"], name="deep", group=8, strides=[2, 2]),
    ]
    weights = {
        "a": random.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "bias": random.standard_normal(8).astype(np.float32),
        "b": random.standard_normal((8, 1, 3, 3)).astype(np.float32),
    }
    return build(nodes, weights, x=("n", 4, 12, 12))


@pytest.fixture
def samples(bench, random):
    """A workbench with smooth images: neighbours are alike."""

    def of(model, count=12):
        noise = random.standard_normal((count, 2, 4, 14, 14)).astype(np.float32)
        smooth = noise[..., 1:-1, 1:-1] + noise[..., 2:, 1:-1] + noise[..., 1:-1, 2:] + noise[..., 2:, 2:]
        return bench(model, *smooth)

    return of


def kept(model):
    """Of each site which columns hold anything, [groups, in/groups, positions]."""
    result = {}
    for site in find_sites(model):
        weight = site.array().reshape(site.groups, -1, site.shape[1], int(np.prod(site.shape[2:])))
        result[site.name] = weight.any(axis=1)
    return result


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("options", "left"), [({"positions": 4}, 4), ({"sparsity": 0.5}, 5), ({"sparsity": 0.99}, 1)])
@pytest.mark.parametrize("with_samples", [True, False])
def test_all_channels_lose_the_same_positions(pair, samples, options, left, with_samples):
    bench = samples(pair) if with_samples else Workbench()
    result = PrunePositions(**options, rewrite=False)(pair, bench)
    for mask in kept(result.model).values():
        assert (mask == mask[0, 0]).all()
        assert np.count_nonzero(mask[0, 0]) == left
    assert [change.action.split(";")[0] for change in result.report.changes] == [f"keeps {left} of 9 positions"] * 2
    assert all("smaller only once encoded" in change.action for change in result.report.changes)


@pytest.mark.parametrize("with_samples", [True, False])
def test_each_channel_may_have_positions_of_its_own(pair, samples, with_samples):
    bench = samples(pair) if with_samples else Workbench()
    masks = kept(PrunePositions(positions=3, per_channel=True, rewrite=False)(pair, bench).model)
    assert all((mask.sum(axis=2) == 3).all() for mask in masks.values())
    assert any((mask != mask[0, 0]).any() for mask in masks.values())
    masks = kept(PrunePositions(sparsity=0.75, per_channel=True, rewrite=False)(pair, bench).model)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"full": 9, "deep": 18}


@pytest.mark.parametrize("with_samples", [True, False])
def test_a_box_is_what_one_smaller_convolution_has(pair, samples, with_samples):
    bench = samples(pair) if with_samples else Workbench()
    masks = kept(PrunePositions(positions=5, shape="box", rewrite=False)(pair, bench).model)
    for mask in masks.values():
        assert np.count_nonzero(mask[0, 0]) == bounding(mask[0, 0].reshape(3, 3)).size == 4


@pytest.mark.parametrize("options", [{}, {"shape": "box"}, {"per_channel": True}])
def test_as_much_goes_as_the_error_allows(pair, options):
    result = PrunePositions(error=0.7, rewrite=False, **options)(pair)
    assert len(result.report.changes) == 2
    assert all(0 < change.error <= 0.7 for change in result.report.changes)
    tight = PrunePositions(error=0.001, rewrite=False, **options)(pair).report
    assert len(tight.skips) == 2
    assert "0.001" in tight.skips[0].reason


def test_an_error_of_nothing_drops_what_is_zero_already(pair, samples, clock, run, random):
    weight = find_sites(pair)[0].array().copy()
    weight[:, :, 0] = weight[:, :, :, 2] = 0
    pair.replace_weight(find_sites(pair)[0].weight, weight)
    clock(2.0)
    result = PrunePositions(error=0.0, reconstruct=False)(pair, samples(pair))
    (change,) = result.report.changes
    assert change.action.endswith("2x2 Conv, 2.00 times as fast (the model with all of them: 2.00)")
    x = random.standard_normal((3, 4, 12, 12)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, x)[0], run(pair, x)[0], rtol=1e-4, atol=1e-4)  # float32 sums


def test_samples_choose_better_positions_than_sizes_and_refitting_lowers_the_error(pair, samples, run):
    bench = samples(pair)
    errors = {}
    for name, options in {
        "size": {"saliency": "magnitude", "reconstruct": False},
        "refitted": {"saliency": "magnitude"},
        "moments": {},
    }.items():
        pruned = PrunePositions(positions=4, rewrite=False, **options)(pair, bench).model
        errors[name] = np.mean([relative(run(pruned, b["x"])[0], run(pair, b["x"])[0]) for b in bench.feed])
    assert errors["moments"] < errors["refitted"] < 0.9 * errors["size"]


def test_writes_the_smaller_convolution_where_it_is_measured_to_be_faster(pair, clock, run, random):
    shapes = clock(1.5)
    result = PrunePositions(positions=4, shape="box")(pair)
    zeros = PrunePositions(positions=4, shape="box", rewrite=False)(pair)
    assert shapes == [(1, 4, 12, 12), (1, 8, 12, 12)]  # as inferred, of one sample
    assert {node.op for node in result.model.graph.nodes} <= {"Conv", "Relu", "Slice"}
    for change, site in zip(result.report.changes, find_sites(result.model), strict=True):
        assert change.bytes_after == site.nbytes == change.bytes_before * 4 // 9
        assert change.action.endswith("1.50 times as fast")
    x = random.standard_normal((3, 4, 12, 12)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, x)[0], run(zeros.model, x)[0], rtol=1e-4, atol=1e-4)  # float32 sums


def test_stays_dense_where_nothing_is_faster(pair, clock):
    clock(1.0)
    result = PrunePositions(positions=4, shape="box")(pair)
    assert [site.shape for site in find_sites(result.model)] == [(8, 4, 3, 3), (8, 1, 3, 3)]
    for change in result.report.changes:
        assert "stays a dense Conv with zeros, smaller only once encoded" in change.action
        assert "1.00 times as fast, no gain" in change.action
        assert change.bytes_after == change.bytes_before


def test_takes_all_back_where_the_model_is_no_faster(pair, samples, clock):
    clock(2.0, whole=0.9)
    result = PrunePositions(positions=4, shape="box")(pair, samples(pair))
    assert [node.op for node in result.model.graph.nodes] == ["Conv", "Relu", "Conv"]
    assert "2.00 times as fast alone, but the model gets no faster" in result.report.changes[0].action


@pytest.mark.parametrize(("whole", "more"), [([1.1, 1.3], set()), ([1.3, 1.1], {"Add"})])
def test_sums_stay_only_where_the_whole_model_is_faster_with_them(pair, samples, clock, whole, more):
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)
    box = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], np.float32)
    for site, shape in zip(find_sites(pair), (cross, box), strict=True):
        pair.replace_weight(site.weight, site.array() * shape)
    clock(2.0, whole)
    result = PrunePositions(error=0.0, reconstruct=False)(pair, samples(pair))
    assert {node.op for node in result.model.graph.nodes} - {"Slice"} == {"Conv", "Relu"} | more
    assert len(result.report.changes) == 2


def test_crosses_of_several_groups_stay_where_no_few_boxes_hold_them(build, random, clock):
    weight = random.standard_normal((4, 1, 5, 5)).astype(np.float32)
    weight *= np.eye(5, dtype=np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    clock(2.0)
    (change,) = PrunePositions(error=0.0)(build([node], {"w": weight}, x=(1, 4, 9, 9))).report.changes
    assert "its positions are neither a box nor few boxes" in change.action


def test_equal_convolutions_are_timed_once(build, clock, random):
    weight = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "a"], ["t"], name="a", pads=[1, 1, 1, 1])]
    nodes.append(helper.make_node("Conv", ["t", "b"], ["y"], name="b", pads=[1, 1, 1, 1]))
    model = build(nodes, {"a": weight, "b": 2 * weight}, x=(1, 4, 9, 9))
    shapes = clock(2.0)
    assert len(PrunePositions(positions=4, shape="box")(model).report.changes) == 2
    assert shapes == [(1, 4, 9, 9)]


def test_samples_tell_sizes_that_the_model_leaves_open(build, bench, clock, random):
    weight = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=("n", 4, "h", "w2"))
    options = PrunePositions(positions=4, shape="box", saliency="magnitude", reconstruct=False)
    shapes = clock(2.0)
    (change,) = options(model).report.changes
    assert "the size of its input is not known" in change.action
    assert shapes == []
    result = options(model, bench(model, np.ones((2, 4, 7, 8), np.float32)))
    assert "2.00 times as fast" in result.report.changes[0].action
    assert shapes == [(2, 4, 7, 8)]


def test_works_inside_a_branch(build, clock, run, random):
    weight = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    ends = [helper.make_tensor_value_info("t", 1, None)]
    stored = [onnx.numpy_helper.from_array(weight, "w")]
    yes = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["t"], name="c")], "yes", [], ends, stored)
    no = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "no", [], ends)
    model = build(
        [helper.make_node("If", ["which"], ["y"], then_branch=yes, else_branch=no)],
        {"which": np.array(True)},
        x=(1, 4, 9, 9),
    )
    clock(2.0)
    result = PrunePositions(positions=4, shape="box")(model)
    assert "not known" in result.report.changes[0].action
    x = random.standard_normal((1, 4, 9, 9)).astype(np.float32)
    assert run(result.model, x)[0].shape == (1, 4, 7, 7)


def test_leaves_alone_what_has_no_positions(build, random):
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["t"], name="one"),
        helper.make_node("ConvTranspose", ["t", "b"], ["u"], name="up"),
        helper.make_node("Conv", ["u", "c"], ["y"], name="few"),
        helper.make_node("Shape", ["d"], ["z"]),
        helper.make_node("Conv", ["u", "d"], ["v"], name="read"),
    ]
    shapes = {"a": (4, 4, 1, 1), "b": (4, 4, 3, 3), "c": (4, 4, 2, 2), "d": (4, 4, 3, 3)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = build(nodes, weights, x=(1, 4, 9, 9), outputs=("y", "v"))
    report = PrunePositions(positions=4, rewrite=False)(model).report
    assert {skip.site: skip.reason for skip in report.skips} == {
        "one": "has a 1x1 kernel: no position can go; prune-channels removes whole inputs",
        "up": "is a weight of ConvTranspose; only the kernel of a Conv has positions",
        "few": "its kernel has 4 positions, no more than the 4 to keep",
        "read": "Shape '' reads its weight, too, so it must stay as it is",
    }


def test_skips_a_weight_that_is_no_number_and_a_sparsity_of_nothing(build):
    weight = np.full((2, 2, 3, 3), np.nan, np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    (skip,) = PrunePositions(positions=4)(build([node], {"w": weight}, x=(1, 2, 9, 9))).report.skips
    assert "not finite" in skip.reason
    (skip,) = PrunePositions(sparsity=0.05)(build([node], {"w": np.ones_like(weight)}, x=(1, 2, 9, 9))).report.skips
    assert skip.reason == "sparsity 0.05 of 9 positions is none"


def test_says_that_there_were_no_samples(pair):
    (warning,) = PrunePositions(positions=4, rewrite=False)(pair).report.warnings
    assert warning.startswith("no samples: positions go by the size of their weights")
    assert PrunePositions(positions=4, rewrite=False, saliency="magnitude")(pair).report.warnings == []
    with pytest.raises(FeedError, match="second moments come from samples"):
        PrunePositions(positions=4, saliency="moments")(pair)


def test_leaves_the_model_it_is_given_and_runs_in_a_pipeline(pair, samples, clock, run, random):
    before = pair.to_proto().SerializeToString()
    clock(2.0)
    result = Pipeline([PrunePositions(sparsity=0.5, shape="box")])(pair, samples(pair))
    assert pair.to_proto().SerializeToString() == before
    x = random.standard_normal((1, 4, 12, 12)).astype(np.float32)
    assert run(result.model, x)[0].shape == run(pair, x)[0].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of positions, sparsity, error; got none"),
        ({"positions": 4, "error": 0.1}, "give exactly one of positions, sparsity, error"),
        ({"positions": 0}, "positions must be a whole number of at least 1, got 0"),
        ({"sparsity": 1.0}, "sparsity must lie in [0, 1), got 1.0"),
        ({"error": -0.1}, "error must lie in [0, 1), got -0.1"),
        ({"positions": 4, "shape": "cross"}, "shape must be free or box, got 'cross'"),
        ({"positions": 4, "shape": "box", "per_channel": True}, "shape must be free with per_channel"),
        ({"positions": 4, "saliency": "taylor"}, "saliency must be magnitude or moments, got 'taylor'"),
        ({"positions": 4, "rewrite": "no"}, "rewrite must be true or false, got 'no'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        PrunePositions(**options)
    assert message in str(caught.value)
