"""What reads the outputs of a layer."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.activations import activation_behind
from onnxpress.passes.kernels.asymmetric import Bent, Largest
from onnxpress.rewriter.sites import find_sites

WEIGHTS = {
    "w": np.ones((4, 4), np.float32),
    "k": np.ones((4, 4, 3, 3), np.float32),
    "c": np.full(4, 0.5, np.float32),
    "s": np.float32([0, 0.25, 0.5, 1]),
    "s3": np.float32([0, 0.25, 0.5, 1]).reshape(4, 1, 1),
    "steep": np.float32([2]),
    "low": np.array(-1, np.float32),
    "six": np.array(6, np.float32),
    "0": np.array([0]),
    "1": np.array([1]),
    "2": np.array([2]),
    "4": np.array([4]),
}


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs, [output], **attrs)


FC, CONV = node("MatMul", ["x", "w"], "p"), node("Conv", ["x", "k"], "p", pads=[1] * 4)


def found(build, *nodes, x=("n", 4), outputs=("y",)):
    model = build([node("Sigmoid", ["x"], "r"), *nodes], WEIGHTS, x=list(x), outputs=outputs)
    return activation_behind(model, find_sites(model)[0])


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        (node("Relu", ["p"], "y"), [-0.0, 0, 3, 8]),
        (node("Clip", ["p", "", "six"], "y"), [-2, -0.5, 3, 6]),
        (node("Clip", ["p", "low", "six"], "y"), [-1, -0.5, 3, 6]),
        (node("LeakyRelu", ["p"], "y", alpha=0.5), [-1, -0.25, 3, 8]),
        (node("PRelu", ["p", "s"], "y"), [0, -0.125, 3, 8]),
    ],
)
def test_finds_the_kin_of_relu(build, reader, expected):
    behind = found(build, FC, reader)
    assert isinstance(behind.activation, Bent)
    assert (behind.op, behind.added, behind.intercept) == (reader.op_type, False, None)
    np.testing.assert_allclose(behind.activation.of(np.float32([[-2, -0.5, 3, 8]])), [expected], rtol=1e-6)


def test_finds_the_slopes_of_channels(build):
    behind = found(build, CONV, node("PRelu", ["p", "s3"], "y"), x=("n", 4, 5, 5))
    np.testing.assert_array_equal(behind.activation.slope, WEIGHTS["s"])


def test_finds_maxout(build):
    cuts = node("Slice", ["p", "0", "2", "1"], "a"), node("Slice", ["p", "2", "4", "1"], "b")
    behind = found(build, CONV, *cuts, node("Max", ["a", "b"], "y"), x=("n", 4, 5, 5))
    assert isinstance(behind.activation, Largest)
    assert (behind.op, behind.activation.pieces) == ("Max", 2)


def test_finds_it_behind_a_bias_and_what_is_added(build):
    behind = found(build, FC, node("Add", ["c", "p"], "o"), node("Add", ["o", "r"], "q"), node("Relu", ["q"], "y"))
    assert (behind.op, behind.added) == ("Relu", True)
    assert behind.intercept.node.op == "Add"


@pytest.mark.parametrize(
    "nodes",
    [
        [FC, node("Sigmoid", ["p"], "y")],
        [FC, node("Clip", ["p", "six", "low"], "y")],
        [FC, node("Clip", ["p", "r"], "y")],
        [FC, node("PRelu", ["r", "p"], "y")],
        [FC, node("PRelu", ["p", "steep"], "y")],
        [FC, node("PRelu", ["p", "s3"], "y")],
        [FC, node("LeakyRelu", ["p"], "y", alpha=-0.5)],
        [FC, node("Relu", ["p"], "q"), node("Add", ["p", "q"], "y")],
        [FC, node("Add", ["p", "c"], "o"), node("Add", ["o", "s"], "q"), node("Relu", ["q"], "y")],
        [FC, node("Add", ["p", "r"], "o"), node("Add", ["o", "x"], "q"), node("Relu", ["q"], "y")],
        [node("Gemm", ["x", "w"], "p", alpha=2.0), node("Relu", ["p"], "y")],
        [FC, node("Mul", ["p", "r"], "q"), node("Relu", ["q"], "y")],
    ],
)
def test_leaves_what_else_is_done_with_the_outputs(build, nodes):
    assert found(build, *nodes) is None


def test_leaves_outputs_that_the_model_gives(build):
    assert found(build, FC, node("Relu", ["p"], "y"), outputs=("y", "p")) is None
