"""The layers that read what units carry."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.channels.consumers import consumers_of
from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def flat(build, random):
    """Eight channels, each of which a layer of 16392 inputs reads at 2049 places, and another one in the mean."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="stem"),
        helper.make_node("Flatten", ["p"], ["q"]),
        helper.make_node("Gemm", ["q", "b"], ["r"], name="wide"),
        helper.make_node("GlobalAveragePool", ["p"], ["s"]),
        helper.make_node("Flatten", ["s"], ["t"]),
        helper.make_node("Gemm", ["t", "c"], ["u"], name="mean"),
        helper.make_node("Add", ["r", "u"], ["y"]),
    ]
    shapes = {"a": (8, 2, 1), "b": (16392, 3), "c": (8, 3)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return build(nodes, weights, x=("n", 2, 2049))


def test_too_wide_a_layer_does_not_judge_units(flat):
    group = find_couplings(flat).by_name("stem")
    found = consumers_of(flat, group, {id(site.weight): site for site in find_sites(flat)})
    assert [each.site.name for each in found] == ["mean"]


def test_too_wide_a_layer_is_left_alone_with_a_reason(flat, bench, random, removed):
    samples = bench(flat, *random.standard_normal((8, 6, 2, 2049)).astype(np.float32))
    report = PruneChannels(count=1, round_to=1)(flat, samples).report
    assert removed(report) == {"stem": 1}
    assert [change.site for change in report.changes if "refitted" in change.action] == ["mean"]
    assert [skip.reason for skip in report.skips if skip.site == "wide" and "refitted" in skip.reason] == [
        "is not refitted: it reads 14343 inputs: the second moments of so many take 13 GB"
    ]
