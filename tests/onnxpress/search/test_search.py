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
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search import search
from onnxpress.search.plans import NORMALISED, Plan, Route, numbers, sizes, structures
from onnxpress.search.search import climb
from onnxpress.search.trial import Trial

QUICK = 0.01


def plan_of(bits):
    return Plan(f"{bits} bits", (ShareKMeans(bits=bits, min_size=1), Encode(measure=False, least_saving=0)))


def climbed(route, limit):
    """Strengths that a route tries where everything above `limit` loses too much."""
    found, steps = [], climb(route)
    plan = next(steps)
    while True:
        strength = float(plan.name)
        found.append(strength)
        outcome = "lossy" if strength > limit else "accepted"
        try:
            plan = steps.send(Trial(name=plan.name, key=plan.key, passes=(), outcome=outcome))
        except StopIteration:
            return found


def strengths(first=0.5, steps=5):
    return Route("r", lambda at: Plan(str(at), (ShareKMeans(error=0.01 + at / 2),)), first, steps)


@pytest.mark.parametrize("limit", [0.03, 0.3, 0.52, 0.99])
def test_a_climb_closes_in_on_what_is_just_good_enough(limit):
    found = climbed(strengths(steps=8), limit)
    assert len(found) == 8
    assert abs(found[-1] - limit) < 1 / 2**7
    assert len(set(found)) == len(found)


def test_a_climb_ends_where_nothing_new_comes_and_where_a_plan_fails():
    assert climbed(Route("r", lambda at: Plan("0.5", (Encode(),)), 0.5, 5), 1.0) == [0.5]
    steps = climb(strengths())
    plan = next(steps)
    with pytest.raises(StopIteration):
        steps.send(Trial(name=plan.name, key=plan.key, passes=(), outcome="failed"))


@pytest.mark.parametrize("learns", [True, False])
def test_every_route_has_plans_at_every_strength(learns):
    workbench = Workbench()
    narrow = Plan("narrow", (Encode(),))
    routes = [*sizes(learns=learns), *structures(narrow, learns=learns)]
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
