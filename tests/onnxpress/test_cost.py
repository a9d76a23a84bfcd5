"""Multiply-adds are those of the definition of each op."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.cost import Cost, multiply_adds
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes


def cost(op, shapes, *, index=None, inputs=("x",), **attributes):
    """The cost of one node: `shapes` by name, those not in `inputs` are weights."""
    node = helper.make_node(op, list(shapes), ["y"], name="node", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in inputs]
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in shapes.items()
        if name and name not in inputs
    ]
    graph = helper.make_graph([node], "one", values, [onnx.ValueInfoProto(name="y")], weights)
    model = Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    return multiply_adds(model.graph.nodes[0], infer_shapes(model), index)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "expected"),
    [
        ("Conv", {"x": [1, 4, 8, 8], "w": [6, 4, 3, 3]}, {"pads": [1, 1, 1, 1]}, 6 * 8 * 8 * 4 * 9),
        ("Conv", {"x": [2, 4, 8, 8], "w": [4, 1, 3, 3]}, {"group": 4}, 2 * 4 * 6 * 6 * 9),
        ("ConvTranspose", {"x": [1, 4, 8, 8], "w": [4, 6, 3, 3]}, {}, 4 * 8 * 8 * 6 * 9),
        ("Gemm", {"x": [5, 8], "w": [3, 8]}, {"transB": 1}, 5 * 3 * 8),
        ("Gemm", {"x": [8, 5], "w": [8, 3]}, {"transA": 1}, 5 * 3 * 8),
        ("MatMul", {"x": [2, 7, 8], "w": [8, 3]}, {}, 2 * 7 * 8 * 3),
        ("LSTM", {"x": [9, 1, 8], "w": [1, 16, 8], "r": [1, 16, 4]}, {"hidden_size": 4}, 9 * 16 * 12),
        ("Relu", {"x": [5, 8]}, {}, 0),
    ],
)
def test_counts_multiply_adds(op, shapes, attributes, expected):
    assert cost(op, shapes, **attributes) == Cost(expected)


def test_counts_one_weight_of_a_recurrent_node():
    shapes = {"x": [9, 1, 8], "w": [1, 16, 8], "r": [1, 16, 4]}
    assert cost("LSTM", shapes, index=1, hidden_size=4) == Cost(9 * 16 * 8)


def test_open_sizes_count_as_one_and_are_named():
    assert cost("MatMul", {"x": ["n", 8], "w": [8, 3]}) == Cost(24, frozenset({"n"}))


def test_an_unknown_shape_gives_no_number():
    assert cost("MatMul", {"x": None, "w": [8, 3]}) is None
