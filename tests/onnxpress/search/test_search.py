"""A route is climbed by halving the step; the best within the budget comes first, however the search is interrupted."""

import numpy as np
import onnxruntime
import pytest

from onnxpress.cli import main
from onnxpress.compression import compress
from onnxpress.outcome import LimitsNotMet
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.search import run as module
from onnxpress.search import search
from onnxpress.search.budget import GOALS
from onnxpress.search.measure import Scales
from onnxpress.search.plans import NORMALISED, Plan, Route, numbers, sizes, structures
from onnxpress.search.trial import Trial

QUICK = 0.01


def plan_of(bits):
    return Plan(f"{bits} bits", (ShareKMeans(bits=bits, min_size=1), Encode(measure=False, least_saving=0)))


@pytest.mark.parametrize("learns", [True, False])
def test_every_route_has_plans_at_every_strength(learns):
    workbench = Workbench()
    narrow = Plan("narrow", (Encode(),))
    routes = [*sizes(learns=learns)]
    routes += [each for goal in GOALS for each in structures(narrow, goal, learns=learns, nbytes=1000)]
    routes += [each for goal in ("latency", "memory") for each in numbers(workbench, goal)]
    for route in routes:
        for strength in (0.0, route.first, 0.77, 1.0):
            plan = route.plan(strength)
            assert plan.key == route.plan(strength).key
            assert plan.options
            assert plan.name


def test_keys_tell_options_apart():
    keys = {plan_of(bits).key for bits in (2, 3, 4)} | {NORMALISED.key}
    assert len(keys) == 4
    assert plan_of(2).behind(NORMALISED).key == plan_of(2).key
    assert [each.name for each in plan_of(2).behind(plan_of(3)).passes] == ["share-kmeans", "encode"] * 2


@pytest.fixture
def routes(monkeypatch):
    """Quick ones."""

    def few(*, learns):
        return [Route("bits", lambda at: plan_of(round(8 - 7 * at)), 0.5, 4)]

    monkeypatch.setattr(search, "sizes", few)


def test_the_best_within_the_budget_is_delivered(model, out, samples, routes):
    result = compress(model, out, goal="size", max_drop=0.3, metric="top1", data=samples, bench_seconds=QUICK)
    accepted = [each for each in result.trials if each.accepted]
    assert result.trials[0].name == "normalised"
    assert len(accepted) >= 2
    assert result.bytes_after < result.bytes_before
    assert result.bytes_after in {each.nbytes for each in accepted}
    assert result.gate is not None
    assert result.gate.held
    assert [each.name for each in result.stages] == ["normalise", "share-kmeans", "encode"]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 8), np.float32)})[0].shape == (1, 10)
    assert sorted(each.name for each in out.parent.iterdir()) == [out.name]


def test_equal_files_are_measured_once(model, out, samples, tmp_path, monkeypatch):
    def lossy_or_good(strength):
        return Plan(f"{strength}", (ShareKMeans(bits=4 if strength else 1, min_size=1), Encode(least_saving=0)))

    def again(strength):  # the option makes no difference
        plan = lossy_or_good(strength)
        return Plan(f"again {strength}", (plan.passes[0], Encode(least_saving=0, max_load_bytes=2**40)))

    routes = [Route(str(at), lambda _, at=at: lossy_or_good(at), steps=1) for at in (0, 1)]
    routes += [Route(f"again {at}", lambda _, at=at: again(at), steps=1) for at in (0, 1)]
    monkeypatch.setattr(search, "sizes", lambda *, learns: routes)
    judged, weigh = [], Scales.weigh
    monkeypatch.setattr(
        Scales, "weigh", lambda self, plan, *a, **k: judged.append(plan.name) or weigh(self, plan, *a, **k)
    )
    wanted = {"goal": "size", "min_sqnr": 8, "data": samples, "bench_seconds": QUICK, "folder": tmp_path / "search"}
    first = compress(model, out, **wanted)
    assert judged == ["normalised", "0", "1"]
    found = {each.name: each for each in first.trials}
    assert (found["0"].outcome, found["1"].outcome) == ("lossy", "accepted")
    assert (found["again 0"].outcome, found["again 1"].outcome) == ("lossy", "weak")
    assert found["again 0"].reason == f"the same file as 0: {found['0'].reason}"
    assert found["again 1"].reason == "the same file as 1"
    assert found["again 1"].sqnr == found["1"].sqnr
    (tmp_path / "search" / "trials" / f"{again(1).key}.json").unlink()  # as if it was stopped before the last
    assert compress(model, out, **wanted).trials[-1].reason == "the same file as 1"
    assert judged == ["normalised", "0", "1"]


def test_a_search_that_cannot_begin_leaves_no_folder(model, out, samples, tmp_path, routes):
    bare = {"x": np.zeros((64, 8), np.float32)}
    folder = tmp_path / "search"
    with pytest.raises(FeedError, match="needs labels"):
        compress(model, out, goal="size", max_drop=0.1, metric="top1", data=bare, folder=folder)
    assert not folder.exists()


def test_a_folder_is_of_one_metric(model, out, samples, tmp_path, routes, monkeypatch):
    wanted = {"goal": "size", "max_drop": 0.3, "metric": "top1", "data": samples, "bench_seconds": QUICK}
    compress(model, out, **wanted, folder=tmp_path / "search")
    monkeypatch.setattr(module, "code_of", lambda metric: "other")
    with pytest.raises(ConfigError, match=r"holds another search \(code of the metric differ\)"):
        compress(model, out, **wanted, folder=tmp_path / "search")


class Stop(Exception):
    """What ends a run."""


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_interrupted_and_resumed_it_ends_with_the_same_output(
    model, out, samples, routes, tmp_path, monkeypatch, after
):
    whole = tmp_path / "whole.onnx"
    wanted = {"goal": "size", "max_drop": 0.3, "metric": "top1", "data": samples, "bench_seconds": QUICK}
    compress(model, whole, **wanted)
    measured, count = search.Search._measured, iter(range(100))

    def stopping(self, plan, best):
        if next(count) == after:
            raise Stop
        return measured(self, plan, best)

    with monkeypatch.context() as patch:
        patch.setattr(search.Search, "_measured", stopping)
        with pytest.raises(Stop):
            compress(model, out, **wanted, folder=tmp_path / "search")
    assert not out.exists()
    again = iter(range(100))

    def counting(self, plan, best):
        next(again)
        return measured(self, plan, best)

    monkeypatch.setattr(search.Search, "_measured", counting)
    result = compress(model, out, **wanted, folder=tmp_path / "search")
    assert out.read_bytes() == whole.read_bytes()
    assert next(again) == len(result.trials) - after


def test_a_search_that_gains_nothing_gives_the_input_back(model, out, samples, monkeypatch):
    monkeypatch.setattr(search, "sizes", lambda *, learns: [Route("r", lambda at: plan_of(1), steps=1)])
    with pytest.raises(LimitsNotMet, match=r"nothing gains within the budget|no gain beyond noise") as caught:
        compress(model, out, goal="size", min_sqnr=200, data=samples, bench_seconds=QUICK)
    assert out.read_bytes() == model.read_bytes()
    assert caught.value.result.version == "original"
    assert "dB, 200 wanted" in str(caught.value)


def test_the_command_says_so_by_its_status(model, out, samples, routes, capsys):
    given = ["compress", str(model), "-o", str(out), "--goal", "size", "--data", str(samples)]
    assert main([*given, "--min-sqnr", "200"]) == 3
    assert out.read_bytes() == model.read_bytes()
    assert main([*given, "--min-sqnr", "5"]) == 0
    assert out.stat().st_size < model.stat().st_size
    assert "tried" in capsys.readouterr().out


def test_time_that_is_up_gives_the_best_so_far(model, out, samples, routes):
    with pytest.raises(LimitsNotMet, match="input is delivered unchanged"):
        compress(model, out, goal="size", min_sqnr=5, data=samples, bench_seconds=QUICK, time_limit=1e-6)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"goal": "size", "recipe": "balanced"}, "give one of them, not both"),
        ({"goal": "size", "max_drop": 0.01}, "needs a metric to fall"),
        ({"goal": "speed"}, "goal 'speed'"),
        ({"limit": "4x"}, "is of a search: give a goal"),
        ({"goal": "size", "limit": "four"}, "limit 'four'"),
    ],
)
def test_refuses_what_contradicts_itself(model, out, samples, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        compress(model, out, data=samples, **options)


def test_what_was_not_measured_to_the_end_is_measured_where_that_is_wanted():
    weak = Trial(name="a", key="k", passes=(), outcome="weak", gain=2.0)
    assert weak.settled(2.0)
    assert not weak.settled(1.5)
    assert Trial(name="a", key="k", passes=(), outcome="lossy", gain=2.0).settled(1.5)


@pytest.mark.parametrize("sure", [True, False])
def test_where_the_best_is_only_just_good_enough_gentler_ones_are_measured_too(
    model, out, samples, routes, monkeypatch, sure
):
    monkeypatch.setattr(search.Search, "_doubts", lambda self, trial: 0 if sure else 2)
    monkeypatch.setattr(search, "_NEAR", 0.999)
    result = compress(model, out, goal="size", min_sqnr=10, data=samples, bench_seconds=QUICK)
    best = max((each for each in result.trials if each.accepted), key=lambda each: each.gain)
    behind = result.trials[[each.key for each in result.trials].index(best.key) + 1 :]
    reserve = [each for each in behind if each.accepted and each.gain < best.gain]
    assert bool(reserve) != sure
