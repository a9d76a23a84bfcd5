import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.quantize.ablation import Unit
from onnxpress.passes.quantize.precision import Demand, Judge, Verdict, by_harm, fewest
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.weights import read


@pytest.mark.parametrize("least", [0, 1, 2, 5, 9, 10])
def test_finds_the_fewest_that_are_good_enough(least):
    tried = []
    assert fewest(10, lambda count: tried.append(count) or count >= least) == least
    assert len(tried) == len(set(tried))  # each costs a model


def test_says_where_not_even_all_are_enough():
    assert fewest(4, lambda count: False) is None
    assert fewest(0, lambda count: False) is None


def test_leaves_out_first_what_hurts_most_for_its_work():
    units = {name: Unit(name, None, "weight") for name in "abc"}
    order = by_harm(
        ["a", "b", "c"],
        noise={units["a"]: 1.0, units["b"]: 2.0, units["c"]: 3.0},
        units=lambda floats: [unit for name, unit in units.items() if name not in floats],
        work={"a": 10, "b": 100, "c": 20},
    )
    assert order == ["c", "a", "b"]  # 0.15, 0.1, 0.02


def test_leaves_out_first_what_makes_outputs_no_numbers():
    units = {name: Unit(name, None, "weight") for name in "abc"}
    order = by_harm(
        ["a", "b", "c"],
        noise={units["a"]: 1.0, units["b"]: np.inf, units["c"]: 3.0},
        units=lambda floats: [unit for name, unit in units.items() if name not in floats],
        work=dict.fromkeys("abc", 1.0),
    )
    assert order == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("demand", "verdict", "holds"),
    [
        (Demand(min_sqnr=20), Verdict(20.0), True),
        (Demand(min_sqnr=20), Verdict(19.9), False),
        (Demand(min_sqnr=20), Verdict(np.nan), False),
        (Demand(max_drop=0.01), Verdict(5.0, 0.01), True),
        (Demand(max_drop=0.01), Verdict(50.0, 0.02), False),
        (Demand(max_drop=0.01), Verdict(50.0, np.nan), False),
        (Demand(), Verdict(-5.0), True),
    ],
)
def test_holds_a_model_to_what_was_asked(demand, verdict, holds):
    assert demand.holds(verdict) is holds


@pytest.fixture
def model(build, random):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return build(nodes, {"w": random.standard_normal((4, 3), np.float32)}, x=("n", 4))


def test_judges_by_the_outputs(model, bench, random):
    other, x = model.clone(), random.standard_normal((8, 4), np.float32)
    weight = other.graph.nodes[0].inputs[1]
    other.replace_weight(weight, read(weight) * np.float32(0.9))
    with Judge(model, bench(model, x), Demand(min_sqnr=10)) as judge:
        assert judge.judge(other).sqnr == pytest.approx(20, abs=1e-3)
        assert judge.judge(model) == Verdict(np.inf)


def test_judges_by_the_metric_where_it_must_not_fall(model, bench, random):
    x = random.standard_normal((8, 4), np.float32)
    other = model.clone()
    weight = other.graph.nodes[0].inputs[1]
    other.replace_weight(weight, read(weight) * np.float32(0.5))

    class Size:
        name = "size"

        def __call__(self, runner, feed):
            return float(np.mean([np.abs(runner.run(batch)["y"]).mean() for batch in feed]))

    workbench = bench(model, x)
    asking = Workbench(feed=workbench.feed, metric=Size(), threads=1)
    full = np.abs(x @ read(model.graph.nodes[0].inputs[1])).mean()
    with Judge(model, asking, Demand(max_drop=0.1)) as judge:
        assert judge.judge(other).drop == pytest.approx(full / 2, rel=1e-5)


def test_cannot_judge_without_samples(model):
    with pytest.raises(FeedError, match="--data"):
        Judge(model, Workbench(), Demand(min_sqnr=10))
