"""A rehearsed model has its codes where `quantize-static` puts them, and runs."""

from collections import Counter

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.rehearsal import rehearsed
from onnxpress.passes.quantize.static import QuantizeStatic


@pytest.fixture
def convolutions(build, random):
    """Two convolutions with a pooling layer between them."""
    weights = {
        "w": random.standard_normal((64, 16, 3, 3), np.float32) / 12,
        "b": random.standard_normal(64, np.float32),
        "v": random.standard_normal((8, 64, 3, 3), np.float32) / 24,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="c"),
        helper.make_node("Relu", ["c"], ["r"], name="r"),
        helper.make_node("MaxPool", ["r"], ["p"], name="p", kernel_shape=[2, 2]),
        helper.make_node("Conv", ["p", "v"], ["y"], name="y"),
    ]
    return build(nodes, weights, x=("n", 16, 10, 10))


def operators(model):
    return Counter(node.op for node in model.graph.nodes)


def test_its_operators_are_those_of_the_real_one(convolutions, bench, run, random):
    batch = random.standard_normal((4, 16, 10, 10), np.float32)
    real = QuantizeStatic(min_sqnr=0, layer_sqnr=0)(convolutions, bench(convolutions, batch)).model
    found = rehearsed(convolutions)
    assert operators(found) == operators(real)
    assert operators(found)["QuantizeLinear"] > 0
    assert run(found, batch)[0].shape == run(real, batch)[0].shape


def test_the_model_stays_as_it_is(convolutions):
    before = convolutions.to_proto().SerializeToString()
    rehearsed(convolutions)
    assert convolutions.to_proto().SerializeToString() == before


def test_a_model_that_has_nothing_to_quantize_stays_in_float(build, run):
    plain = build([helper.make_node("Relu", ["x"], ["y"])], {}, x=("n", 4))
    assert operators(rehearsed(plain)) == {"Relu": 1}
    np.testing.assert_array_equal(run(rehearsed(plain), np.eye(4, dtype=np.float32))[0], np.eye(4))
