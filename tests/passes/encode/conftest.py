"""Small models round one weight, and weights with a given number of zeros and of distinct elements."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.model import Model


@pytest.fixture(scope="session")
def make_model():
    """A model that multiplies x by each weight in turn; weights are [n, n] or vectors [n] that are added."""

    def build(weights, *, opset=17, ir_version=8):
        nodes, current = [], "x"
        dtype = next(iter(weights.values())).dtype
        for index, (name, array) in enumerate(weights.items()):
            op = "MatMul" if array.ndim == 2 else "Add"
            nodes.append(helper.make_node(op, [current, name], [f"y{index}"], name=f"node{index}"))
            current = f"y{index}"
        element = helper.np_dtype_to_tensor_dtype(dtype)
        width = next(iter(weights.values())).shape[0]
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", element, ["n", width])],
            [helper.make_tensor_value_info(current, element, None)],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        return Model.from_proto(proto)

    return build


@pytest.fixture(scope="session")
def make_weight():
    """A weight with `density` of its elements not zero, out of `distinct` different ones (None: all different)."""

    def build(shape, *, density=1.0, distinct=None, dtype="float32", seed=0):
        random = np.random.default_rng(seed)
        size = int(np.prod(shape))
        pool = random.standard_normal(distinct or max(size, 1)) * 50
        flat = random.choice(pool, size) if distinct else pool[:size]
        flat = np.where(random.random(size) < density, flat, 0)
        return flat.reshape(shape).astype(dtype)

    return build


@pytest.fixture(scope="session")
def constants_of():
    """Names, dtypes and bytes of all constants."""

    def read(model):
        return {c.name: (model.array(c).dtype.name, model.array(c).tobytes()) for c in model.constants()}

    return read


@pytest.fixture(scope="session")
def conditional_model():
    """A model with an initializer inside a branch of an If, and one of the main graph that both branches read."""

    def build(inner, outer):
        value = helper.make_tensor_value_info
        then = helper.make_graph(
            [helper.make_node("MatMul", ["x", "outer"], ["t0"]), helper.make_node("MatMul", ["t0", "inner"], ["t"])],
            "then",
            [],
            [value("t", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(inner, "inner")],
        )
        other = helper.make_graph(
            [helper.make_node("MatMul", ["x", "outer"], ["e"])], "else", [], [value("e", TensorProto.FLOAT, None)]
        )
        graph = helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
            "graph",
            [value("x", TensorProto.FLOAT, ["n", inner.shape[0]]), value("c", TensorProto.BOOL, [])],
            [value("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(outer, "outer")],
        )
        return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    return build
