import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.bounds import floor_of

X = ("n", 4)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, **attrs)


def test_hard_swish_ignores_what_lies_below_minus_three(build):
    written_out = [node("HardSigmoid", ["a"], ["g"], alpha=1 / 6, beta=0.5), node("Mul", ["a", "g"], ["y"])]
    model = build([node("Neg", ["x"], ["a"]), *written_out], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == pytest.approx(-3, rel=1e-6)
    model = build([node("Neg", ["x"], ["a"]), node("HardSwish", ["a"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -3


def test_swish_ignores_what_lies_below_minus_ten(build):
    model = build([node("Neg", ["x"], ["a"]), node("Sigmoid", ["a"], ["g"]), node("Mul", ["a", "g"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -10


@pytest.mark.parametrize(
    "readers",
    [
        [node("Sigmoid", ["a"], ["g"]), node("Mul", ["a", "w"], ["h"]), node("Add", ["g", "h"], ["y"])],
        [node("Sigmoid", ["a"], ["g"]), node("Add", ["a", "g"], ["y"])],
        [node("HardSigmoid", ["a"], ["y"], alpha=-1.0)],
        [node("HardSwish", ["a"], ["g"]), node("Mul", ["a", "g"], ["y"])],
        [node("Relu", ["a"], ["y"])],
    ],
)
def test_knows_no_floor_for_other_readers(build, readers):
    model = build([node("Neg", ["x"], ["a"]), *readers], {"w": np.ones(4, np.float32)}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -math.inf


def test_knows_no_floor_where_nobody_reads(build):
    model = build([node("Neg", ["x"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -math.inf
