"""Small float models of nodes and weights, and what ONNX Runtime computes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.model import Model


@pytest.fixture(scope="session")
def build() -> Callable[..., Model]:
    """Builds a model with the input x and the output y."""
    return _build


@pytest.fixture(scope="session")
def two_layers(build) -> Callable[..., Model]:
    """Builds x @ w + b -> Relu -> @ v + c -> y, of a Gemm, and of a MatMul with an Add."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["q"], name="second"),
        helper.make_node("Add", ["q", "c"], ["y"]),
    ]
    return lambda **weights: build(nodes, weights, x=["n", len(weights["w"])])


@pytest.fixture(scope="session")
def open_session() -> Callable[..., onnxruntime.InferenceSession]:
    """Opens a model; what ONNX Runtime makes of it may go to a file."""
    return _open


@pytest.fixture(scope="session")
def run() -> Callable[..., list[NDArray]]:
    """What ONNX Runtime computes."""
    return lambda model, x, **others: _open(model).run(None, {"x": x, **others})


@pytest.fixture
def bench() -> Callable[..., Workbench]:
    """A workbench with the given batches of x."""
    return lambda model, *batches: Workbench(
        feed=open_feed([{"x": batch} for batch in batches], inputs=model.inputs), threads=1
    )


@pytest.fixture
def fused(tmp_path: Path, open_session) -> Callable[[Model], Counter]:
    """Counts the operators that ONNX Runtime's own rewriting leaves."""

    def count(model: Model) -> Counter:
        path = tmp_path / "optimised.onnx"
        open_session(model, str(path))
        return Counter(node.op_type for node in onnx.load(path).graph.node)

    return count


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def _build(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray],
    *,
    x: Sequence[int | str | None] | None,
    outputs: Sequence[str] = ("y",),
    dtype: int = onnx.TensorProto.FLOAT,
    gives: int | None = None,
    opset: int = 17,
) -> Model:
    ends = [helper.make_tensor_value_info(name, gives or dtype, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", [helper.make_tensor_value_info("x", dtype, x)], ends)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)]))


def _open(model: Model, optimised: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = optimised
    content = model.to_proto().SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
