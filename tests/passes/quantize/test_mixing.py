from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.pace import Pace
from onnxpress.passes.quantize import mixing
from onnxpress.passes.quantize.mixing import NOTABLE, in_float, measured_pace, mix, rank
from onnxpress.passes.quantize.precision import Demand, Verdict
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.report import Report


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def model(build, random):
    """Three layers of which the second reads one channel far larger than the others, and multiplies it by nothing."""
    weights = {name: random.standard_normal((32, 32), np.float32) for name in "uvw"}
    weights["large"] = np.ones(32, np.float32)
    weights["large"][0] = 2000
    weights["v"][0] = 0
    nodes = [
        node("MatMul", ["x", "u"], ["a"]),
        node("Mul", ["a", "large"], ["b"]),
        node("MatMul", ["b", "v"], ["c"]),
        node("Relu", ["c"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    return build(nodes, weights, x=("n", 32))


@pytest.fixture
def workbench(model, bench, random):
    return bench(model, random.standard_normal((16, 32), np.float32))


@pytest.fixture
def plan(model, workbench):
    return QuantizeStatic(layer_sqnr=0, rounding="nearest").plan(model, Report("plan"), workbench)


def test_leaves_the_layer_in_float_that_hurts(model, plan, workbench):
    found = mix(model, plan, workbench, Demand(min_sqnr=20))
    assert found.floats == {"c": "left in float so that the outputs keep 20 dB"}
    assert found.held
    assert found.verdict.sqnr >= 20
    assert (found.harms[0].tensor, found.harms[0].reader) == ("b", "c")
    assert [each.sqnr for each in found.harms] == sorted(each.sqnr for each in found.harms)


def test_leaves_nothing_in_float_where_all_is_good(model, plan, workbench):
    found = mix(model, plan, workbench, Demand(min_sqnr=-100))
    assert (found.floats, found.held, found.harms) == ({}, True, [])


def test_says_where_not_even_all_layers_in_float_are_enough(model, plan, workbench):
    found = mix(model, plan, workbench, Demand(min_sqnr=200))
    assert not found.held
    assert set(found.floats) == {"a", "c", "y"}
    assert 20 < found.verdict.sqnr < 200  # weights are 8 bits still


def test_a_limit_on_the_metric_is_named(model, plan, workbench):
    class Mean:
        name = "mean"

        def __call__(self, runner, feed):
            return -float(np.mean([np.square(runner.run(batch)["y"] - wanted).mean() for batch in feed]))

    wanted = next(iter(workbench.feed))["x"]
    asking = mixing.Workbench(feed=workbench.feed, metric=Mean(), threads=1)
    found = mix(model, plan, asking, Demand(min_sqnr=-50, max_drop=-1e9))
    assert not found.held
    assert set(found.floats.values()) == {"left in float so that the outputs keep -50 dB and the metric within -1e+09"}


def test_writes_and_judges_each_choice_once(model, plan, workbench, monkeypatch):
    written, real = [], mixing.write

    def write(copy, plan, report, *, floats):
        written.append(frozenset(floats))
        return real(copy, plan, report, floats=floats)

    monkeypatch.setattr(mixing, "write", write)
    mix(model, plan, workbench, Demand(min_sqnr=20))
    assert len(written) == len(set(written)) > 1


def test_leaves_the_model_and_the_plan_as_they_were(model, plan, workbench):
    before, ranges = model.to_proto().SerializeToString(), dict(plan.ranges)
    mix(model, plan, workbench, Demand(min_sqnr=20))
    assert model.to_proto().SerializeToString() == before
    assert plan.ranges == ranges
    assert plan.nodes() == ["a", "c", "y"]


def test_ranks_tensors_by_what_they_do_alone(model, plan, workbench):
    harms = rank(model, plan, workbench)
    assert (harms[0].tensor, harms[0].reader, harms[0].kind) == ("b", "c", "activation")
    assert {(each.tensor, each.kind) for each in harms} >= {("u", "weight"), ("v", "weight"), ("w", "weight")}


def test_all_layers_in_float_are_the_recurrent_ones_too(plan):
    assert in_float(plan, "slow") == dict.fromkeys(["a", "c", "y"], "slow")
    plan.recurrent = SimpleNamespace(levels={"r": 30.0})
    assert in_float(plan, "slow") == dict.fromkeys(["a", "c", "y", "r"], "slow")


@pytest.mark.parametrize(
    ("gain", "order"), [(NOTABLE, ["r", "a"]), (NOTABLE - 0.1, ["a", "r"]), (float("nan"), ["r", "a"])]
)
def test_recurrent_layers_go_first_where_they_cost_much(gain, order, monkeypatch):
    verdict = {(): 10.0, ("r",): 10.0 + gain}
    monkeypatch.setattr(mixing._Trial, "verdict", lambda _, floats: Verdict(verdict[tuple(floats)]))
    trial = mixing._Trial(None, SimpleNamespace(recurrent=SimpleNamespace(levels={"r": 30.0})), None)
    assert trial.with_recurrent(["a"]) == order


def test_times_the_model_on_codes_beside_the_one_in_float(model, plan, workbench, monkeypatch):
    asked = []

    def pace(reference, models, bench):
        asked.append((reference, [sum(each.op == "DequantizeLinear" for each in one.graph.nodes) for one in models]))
        return [Pace(1.5, (1.4, 1.6))]

    monkeypatch.setattr(mixing, "pace", pace)
    assert measured_pace(model, plan, {}, workbench, reference=model) == Pace(1.5, (1.4, 1.6))
    measured_pace(model, plan, {"c": "it hurts"}, workbench, reference=model)
    assert all(reference is model for reference, _ in asked)
    (_, [all_on_codes]), (_, [fewer]) = asked
    assert all_on_codes > fewer > 0
