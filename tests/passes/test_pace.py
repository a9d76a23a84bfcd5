import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes import pace as timed
from onnxpress.passes.base import Workbench
from onnxpress.passes.pace import BATCHES, Pace, pace
from onnxpress.rewriter.errors import FeedError


@pytest.fixture
def models(build):
    """Models that multiply by 1, 2 and 3."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    return [build(nodes, {"w": np.float32(factor)}, x=("n",)) for factor in (1, 2, 3)]


def test_compares_each_model_with_the_first_round_by_round(models, bench, monkeypatch):
    seen = []

    def turns(runners, batches, *, seconds, rounds, progress):
        seen.append(([float(each.run(batches[0])["y"][0]) for each in runners], len(batches), seconds))
        return np.array([[4.0, 2.0, 8.0], [6.0, 2.0, 6.0], [40.0, 10.0, 80.0], [1.0, 1.0, 1.0], [5.0, 1.0, 5.0]])

    monkeypatch.setattr(timed, "in_turns", turns)
    workbench = bench(models[0], *[np.full(1, 1 + at, np.float32) for at in range(BATCHES + 3)])
    found = pace(models[0], models[1:], workbench, seconds=0.5)
    assert seen == [([1.0, 2.0, 3.0], BATCHES, 1.0)]
    assert found == [Pace(3.0, (2.0, 4.0)), Pace(1.0, (0.5, 1.0))]
    assert [each.slower for each in found] == [False, True]


def test_of_several_providers_the_slowest_counts(models, monkeypatch):
    times = iter([np.array([[3.0, 1.0]]), np.array([[1.0, 2.0]])])
    monkeypatch.setattr(timed, "in_turns", lambda *_, **__: next(times))
    feed = open_feed([{"x": np.ones(1, np.float32)}], inputs=models[0].inputs)
    workbench = Workbench(feed=feed, providers=("CPUExecutionProvider", "cpu"), threads=1)
    assert pace(models[0], models[1:2], workbench) == [Pace(0.5, (0.5, 0.5))]


@pytest.mark.parametrize(("speedup", "slower"), [(1.01, False), (1.0, True), (0.5, True), (float("nan"), True)])
def test_is_slower_unless_it_is_seen_to_be_faster(speedup, slower):
    assert Pace(speedup, (speedup, speedup)).slower is slower


def test_tells_the_figures():
    told = Pace(1.234, (0.9, 1.456)).describe("with zeros")
    assert told == "1.23 times as fast as with zeros (middle half of rounds 0.90 to 1.46)"


def test_needs_samples(models):
    with pytest.raises(FeedError, match="--data"):
        pace(models[0], models[1:], Workbench())


def test_the_least_of_rounds_together_counts_so_that_interruptions_do_not(models, bench, monkeypatch):
    rounds = np.tile([[4.0, 2.0], [4.0, 90.0], [70.0, 2.0], [4.0, 2.0]], (12, 1))  # of one batch

    monkeypatch.setattr(timed, "in_turns", lambda *_, **__: rounds)
    workbench = bench(models[0], np.ones(1, np.float32))
    assert pace(models[0], models[1:2], workbench, together=2) == [Pace(2.0, (2.0, 2.0))]
    assert pace(models[0], models[1:2], workbench) != [Pace(2.0, (2.0, 2.0))]


def test_rounds_count_together_only_with_those_of_the_same_batch(models, bench, monkeypatch):
    rounds = np.tile([[4.0, 2.0], [40.0, 10.0]], (12, 1))  # of two batches in turn
    monkeypatch.setattr(timed, "in_turns", lambda *_, **__: rounds)
    workbench = bench(models[0], *np.ones((2, 1), np.float32))
    assert pace(models[0], models[1:2], workbench, together=8) == [Pace(3.0, (2.0, 4.0))]
