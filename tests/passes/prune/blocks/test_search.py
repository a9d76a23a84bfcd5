"""Branches go one after another, each time the one that leaves most."""

import math
from itertools import combinations

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.blocks.averages import Means
from onnxpress.passes.prune.blocks.residual import find_branches
from onnxpress.passes.prune.blocks.search import TRIED, Search
from onnxpress.passes.report import Report
from onnxpress.rewriter.shapes import infer_shapes


class Table:
    """Stands for a model with switches: noise adds up, but for some pairs."""

    def __init__(self, noise, *, pairs=None, unlike=()):
        self.noise, self.pairs, self.unlike, self.asked = noise, pairs or {}, set(unlike), []

    def sqnr(self, chosen):
        self.asked.append(tuple(chosen))
        found = sum(self.noise[each] for each in chosen)
        found += sum(extra for pair, extra in self.pairs.items() if pair <= set(chosen))
        return -10 * math.log10(found) if found < math.inf else -math.inf


@pytest.fixture
def branches(build, random):
    """Branches of eight blocks, one behind the other."""
    names = ["x", *(f"s{index}" for index in range(7)), "y"]
    nodes = []
    for index in range(8):
        nodes.append(helper.make_node("MatMul", [names[index], f"w{index}"], [f"b{index}"], name=f"fc{index}"))
        nodes.append(helper.make_node("Add", [names[index], f"b{index}"], [names[index + 1]]))
    weights = {f"w{index}": random.standard_normal((4, 4)).astype(np.float32) for index in range(8)}
    model = build(nodes, weights, x=("n", 4))
    return find_branches(model, infer_shapes(model))[0]


def searched(branches, table, *, most=8, floor=None):
    search = Search(branches, table, Workbench())
    search.run(most=most, floor=floor)
    return search


def test_those_that_cost_least_go_first(branches):
    search = searched(branches, Table([0.5, 0.01, 0.2, 0.03, 0.4, 0.6, 0.7, 0.8]), most=3)
    assert search.chosen == [1, 3, 2]
    assert search.course == pytest.approx([20.0, -10 * math.log10(0.04), -10 * math.log10(0.24)])


def test_what_has_become_dear_stays(branches):
    """The second cheapest alone is the worst beside the cheapest."""
    noise = [0.5, 0.01, 0.02, 0.03, 0.4, 0.6, 0.7, 0.8]
    search = searched(branches, Table(noise, pairs={frozenset({1, 2}): 5.0}), most=2)
    assert search.chosen == [1, 3]
    best = min(combinations(range(8), 2), key=lambda pair: sum(noise[each] for each in pair) + 5.0 * (pair == (1, 2)))
    assert sorted(search.chosen) == list(best)


def test_at_each_step_only_the_likeliest_are_tried(branches):
    table = Table([0.1 + 0.01 * index for index in range(8)])
    searched(branches, table, most=2)
    steps = table.asked[8:]
    assert steps == [(index,) for index in range(TRIED)] + [(0, index) for index in range(1, 1 + TRIED)]


def test_stops_before_too_few_decibels_are_left(branches):
    noise = [0.001, 0.01, 0.1, 1, 1, 1, 1, 1]
    search = searched(branches, Table(noise), floor=19.0)
    assert search.chosen == [0, 1]
    report = Report("prune-blocks")
    search.tell(report, Means({}))
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["fc2"] == "kept: 10.0 dB would be left without it alone, 9.5 dB without it and 2 that went"
    assert [change.site for change in report.changes] == ["fc0", "fc1"]
    assert report.curves[0].ratios == (1 / 8, 2 / 8)


def test_what_leaves_no_number_or_another_shape_stays(branches):
    noise = [math.inf, 0.01, 0.02, math.inf, math.inf, math.inf, math.inf, math.inf]
    search = searched(branches, Table(noise, unlike=[1]))
    assert search.chosen == [2]
    report = Report("prune-blocks")
    search.tell(report, Means({}))
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["fc0"] == "kept: -inf dB would be left without it alone"
    assert reasons["fc1"] == "without it 's1' has another shape on these samples"
