from collections.abc import Callable, Mapping, Sequence

import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxpress.rewriter.model import Model


@pytest.fixture
def build() -> Callable[..., Model]:
    """Builds a float model of nodes and weights with the inputs x and output y."""
    return _build


@pytest.fixture(scope="session")
def build_once() -> Callable[..., Model]:
    """The same, for fixtures that outlive a test."""
    return _build


@pytest.fixture(scope="session")
def run() -> Callable[..., list[NDArray]]:
    """What ONNX Runtime computes."""
    return _run


def _build(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray],
    *,
    x: Sequence[int | str | None] | None,
    outputs: Sequence[str] = ("y",),
    dtype: int = onnx.TensorProto.FLOAT,
    opset: int = 17,
) -> Model:
    ends = [helper.make_tensor_value_info(name, dtype, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", [helper.make_tensor_value_info("x", dtype, x)], ends)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)]))


def _run(model: Model, x: NDArray, **others: NDArray) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.to_proto().SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, **others})
