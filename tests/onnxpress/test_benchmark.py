"""Two models are timed in turns, for a bounded time."""

from dataclasses import replace

import numpy as np
import pytest

from onnxpress import benchmark
from onnxpress.benchmark import bench
from onnxpress.calibration.calm import Calm
from onnxpress.rewriter.errors import ConfigError


def test_times_pairs_on_each_provider(model, samples):
    (found,) = bench(model, model, data=samples, pairs=5, seconds=60, threads=1)
    assert (found.pairs, found.threads) == (5, 1)
    assert found.shapes == {"x": (32, 8)}
    assert found.first.nbytes == found.second.nbytes == model.stat().st_size
    assert found.first.quartiles[0] <= found.first.median <= found.first.quartiles[1]
    assert found.quartiles[0] <= found.speedup <= found.quartiles[1]


def test_stops_when_the_time_is_up_but_not_before_three_pairs(model):
    (found,) = bench(model, model, data={"x": np.zeros((1, 8), np.float32)}, seconds=1e-9)
    assert found.pairs == 3


@pytest.mark.parametrize(("seconds", "pairs"), [(0, 1), (1, 0)])
def test_refuses_no_time_and_no_pairs(model, seconds, pairs):
    with pytest.raises(ConfigError, match="give"):
        bench(model, model, seconds=seconds, pairs=pairs)


@pytest.mark.parametrize(("quick", "times"), [(1000.0, benchmark.LOADS), (0.0, 1)])
def test_opening_a_session_is_timed_more_than_once_where_that_is_quick(model, monkeypatch, quick, times):
    opened = []
    runner = benchmark.Runner
    monkeypatch.setattr(benchmark, "QUICK", quick)
    monkeypatch.setattr(benchmark, "Runner", lambda *a, **k: opened.append(a) or runner(*a, **k))
    (found,) = bench(model, model, seconds=0.01)
    assert len(opened) == 1 + 2 * times  # the first reads what the inputs are
    assert found.first.load_seconds > 0


def test_is_taken_again_where_the_reference_was_slower_than_before(model, monkeypatch):
    found = iter([(1.0, 0.5), (1.5, 1.4), (1.0, 0.5), (1.5, 1.4)])
    monkeypatch.setattr(benchmark, "in_turns", lambda *_, **__: np.full((3, 2), next(found)))
    calm = Calm(patience=60.0)
    data = {"x": np.zeros((1, 8), np.float32)}
    timed = [bench(model, model, data=data, calm=calm)[0] for _ in range(2)]
    assert [(each.speedup, each.slowed) for each in timed] == [(2.0, 1.0), (2.0, 1.0)]
    disturbed = bench(model, model, data=data, calm=replace(calm, patience=0.0))[0]
    assert (disturbed.speedup, disturbed.slowed) == (pytest.approx(1.5 / 1.4), 1.5)
