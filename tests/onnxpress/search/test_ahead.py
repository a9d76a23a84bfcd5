"""Candidates that workers make are those that are made here, and are measured in the same order."""

import joblib
import pytest

from onnxpress.compression import compress
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.rewriter.errors import EngineError
from onnxpress.search import ahead, search
from onnxpress.search.plans import Plan, Route

FINISH = Encode(measure=False, least_saving=0)
BUDGET = {"goal": "size", "max_drop": 0.3, "metric": "top1", "bench_seconds": 0.01, "threads": 1}


def few(*, learns):
    """Two routes that travel, one that measures for several sizes, and a plan that fails."""

    def values(strength):
        return Plan(f"{strength}", (ShareKMeans(bits=round(8 - 7 * strength), min_size=1), FINISH))

    def vectors(strength):
        how = ShareVectors(length=2, bits=round(8 - 5 * strength), min_size=1)
        return Plan(f"pairs {strength}", (how, FINISH))

    def budget(strength):
        return Plan(f"budget {strength}", (ShareBudget(ratio=2 + 4 * strength, min_size=64), FINISH))

    def failing(strength):
        return Plan("failing", (QuantizeStatic(calibration="nowhere.npz"),))

    routes = (("values", values), ("vectors", vectors), ("budget", budget))
    return [Route("failing", failing, steps=1), *(Route(name, plan, 0.5, 2) for name, plan in routes)]


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """Names of the candidates that came from workers."""
    names, take = [], ahead.Ahead._take
    monkeypatch.setattr(search, "sizes", few)
    monkeypatch.setattr(
        ahead.Ahead, "_take", lambda self, plan, found: names.append(plan.name) or take(self, plan, found)
    )
    return names


@pytest.fixture
def alone(model, samples, tmp_path, taken):
    """What one worker comes to."""
    result = compress(model, tmp_path / "alone.onnx", data=samples, **BUDGET)
    assert not taken
    return result


def facts(result):
    return [(each.name, each.outcome, each.digest, each.gain, each.metric, each.reason) for each in result.trials]


def assert_same(result, alone):
    assert facts(result) == facts(alone)
    assert {each.outcome for each in result.trials} >= {"accepted", "failed"}
    assert result.path.read_bytes() == alone.path.read_bytes()
    assert result.warnings == alone.warnings
    assert [each.name for each in result.stages] == [each.name for each in alone.stages]


def test_two_programs_come_to_the_same(model, out, samples, alone, taken):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        result = compress(model, out, data=samples, **BUDGET)
    assert_same(result, alone)
    assert {"0.5", "pairs 0.5"} <= set(taken)
    assert not any(name.startswith(("budget", "failing")) for name in taken)


def test_a_cluster_comes_to_the_same(model, out, samples, alone, taken, cluster):
    from distributed import Client

    with Client(cluster), joblib.parallel_config(backend="dask"):
        result = compress(model, out, data=samples, **BUDGET)
    assert_same(result, alone)
    assert {"0.5", "pairs 0.5"} <= set(taken)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_what_does_not_travel_is_made_here(model, out, samples, alone, taken, monkeypatch, backend):
    monkeypatch.setattr(ahead, "CARRIED", 1 if backend == "loky" else ahead.CARRIED)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        result = compress(model, out, data=samples, **BUDGET)
    assert_same(result, alone)
    assert not taken


def test_lost_workers_do_not_end_the_search(model, out, samples, alone, monkeypatch):
    def lost(*_, **__):
        raise EngineError("workers were lost")

    monkeypatch.setattr(ahead, "each", lost)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        result = compress(model, out, data=samples, **BUDGET)
    assert facts(result) == facts(alone)
    assert "workers were lost; the rest was made without workers" in result.warnings


def test_workers_lost_by_a_pass_do_not_end_the_search(model, out, samples, alone, monkeypatch):
    from onnxpress.passes.jobs import workers

    apply = ShareBudget.measure

    def lost(self, *given):
        if workers() > 1:
            raise EngineError("workers were lost")
        return apply(self, *given)

    monkeypatch.setattr(ShareBudget, "measure", lost)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        result = compress(model, out, data=samples, **BUDGET)
    assert facts(result) == facts(alone)
    assert any("made without workers" in each for each in result.warnings)


def test_what_was_made_and_never_measured_does_not_stay(model, out, samples, tmp_path, taken, monkeypatch):
    monkeypatch.setattr(search, "sizes", lambda *, learns: few(learns=learns)[1:3])
    folder = tmp_path / "search"
    with joblib.parallel_config(backend="loky", n_jobs=2):
        result = compress(model, out, data=samples, folder=folder, limit="1.5x", **BUDGET)
    assert taken == ["0.5", "pairs 0.5"]
    assert [each.name for each in result.trials] == ["normalised", "0.5"]
    values, vectors = (route.plan(0.5).key for route in few(learns=True)[1:3])
    there = {each.name for each in (folder / "models").iterdir()}
    assert values in there
    assert vectors not in there


def test_passes_that_time_say_so():
    assert Factorize(min_sqnr=20).times
    assert not Factorize(ratio=0.5, goal="size").times
    assert Encode().times
    assert QuantizeStatic(faster=True).times
    assert not any(each.times for each in (FINISH, QuantizeStatic(), ShareKMeans(bits=4)))
