import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.narrow.check import compare, has_new_odd, tell
from onnxpress.passes.report import Report


@pytest.fixture
def first(build):
    """Builds a model that gives the first few entries of x, times a factor."""

    def make(count, factor=1.0):
        nodes = [helper.make_node("Slice", ["x", "zero", "end"], ["s"]), helper.make_node("Mul", ["s", "f"], ["y"])]
        weights = {"zero": np.array([0]), "end": np.array([count]), "f": np.float32(factor)}
        return build(nodes, weights, x=("n",))

    return make


@pytest.fixture
def workbench(first, bench):
    return bench(first(1), np.arange(1, 6, dtype=np.float32), np.full(4, 2, np.float32))


def told(found):
    report = Report("test")
    tell(found, "float16", report)
    return report


def test_compares_outputs_over_batches(first, workbench):
    found = compare(first(3, 0.99), first(3), workbench)
    assert found["y"].sqnr == pytest.approx(40, abs=1e-3)
    assert not has_new_odd(found)
    assert told(found).changes[0].action.startswith("outputs at 40.0 dB")
    assert told(found).warnings == []


def test_warns_of_outputs_that_are_far_off(first, workbench):
    assert "has 20.0 dB signal to noise in float16" in told(compare(first(3, 0.9), first(3), workbench)).warnings[0]


@pytest.mark.parametrize(("count", "factor"), [(2, 1.0), (3, np.inf)])
def test_warns_of_another_shape_and_of_infinities(first, workbench, count, factor):
    found = compare(first(count, factor), first(3), workbench)
    assert has_new_odd(found)
    assert "'y' is NaN or infinite, or of another shape" in told(found).warnings[0]


def test_compares_nothing_without_samples(first):
    assert compare(first(3), first(3), Workbench()) == {}
    assert told({}).changes == []
