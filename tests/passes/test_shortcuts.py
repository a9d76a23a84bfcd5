"""What is added behind a layer, as it is found."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.views import LastAxis, Patches
from onnxpress.passes.inputs import Reading
from onnxpress.passes.shortcuts import shortcut_of
from onnxpress.rewriter.sites import find_sites

W, C = np.ones((4, 4), np.float32), np.ones(4, np.float32)


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs, [output], **attrs)


def found(build, *nodes):
    model = build([node("Sigmoid", ["x"], "r"), *nodes], {"w": W, "c": C}, x=["n", 4])
    return shortcut_of(model, find_sites(model)[0])


@pytest.mark.parametrize("order", [("o", "r"), ("r", "o")])
@pytest.mark.parametrize("layer", ["MatMul", "Gemm"])
def test_finds_what_is_added_behind_the_bias(build, layer, order):
    nodes = node(layer, ["x", "w"], "p"), node("Add", ["c", "p"], "o"), node("Add", list(order), "y")
    assert found(build, *nodes) == Reading("r", LastAxis())


def test_finds_it_behind_a_convolution(build):
    nodes = [
        node("AveragePool", ["x"], "r", kernel_shape=[1, 1], strides=[2, 2]),
        node("Conv", ["x", "w"], "p", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Add", ["p", "r"], "y"),
    ]
    model = build(nodes, {"w": np.ones((4, 4, 3, 3), np.float32)}, x=["n", 4, "h", "w"])
    view = Patches(kernel=(1, 1), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    assert shortcut_of(model, find_sites(model)[0]) == Reading("r", view)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MatMul", ["x", "w"], "y")],
        [node("MatMul", ["x", "w"], "p"), node("Relu", ["p"], "q"), node("Add", ["q", "r"], "y")],
        [node("MatMul", ["x", "w"], "p"), node("Mul", ["p", "r"], "y")],
        [node("MatMul", ["x", "w"], "p"), node("Add", ["p", "p"], "y")],
        [node("MatMul", ["w", "x"], "p"), node("Add", ["p", "r"], "y")],
        [node("Gemm", ["x", "w"], "p", alpha=2.0), node("Add", ["p", "r"], "y")],
        [node("Gemm", ["x", "w"], "p", transA=1), node("Add", ["p", "r"], "y")],
        [node("MatMul", ["x", "w"], "p"), node("MatMul", ["p", "w"], "q"), node("Add", ["q", "r"], "y")],
    ],
    ids=["nothing", "behind Relu", "product", "itself", "left side", "scaled", "turned", "weight used twice"],
)
def test_finds_nothing_where_the_layer_cannot_make_up_for_it(build, nodes):
    assert found(build, *nodes) is None


def test_finds_nothing_where_others_read_the_product(build):
    nodes = node("MatMul", ["x", "w"], "p"), node("Add", ["p", "r"], "q"), node("Mul", ["p", "q"], "y")
    assert found(build, *nodes) is None
