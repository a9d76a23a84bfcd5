"""Let ONNX Runtime decode weights, in a model that holds nothing but their decoding nodes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array
from onnxpress.rewriter.encode import encode_node, encode_tensor
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import Skeleton, to_bytes
from onnxpress.rewriter.weights import numpy_dtype

# onnxruntime is imported where it is used: importing onnxpress stays light.

BATCH = 1 << 26
"""Bytes of decoded weights held at a time, unless a single one is larger."""


def is_decoding(node: gs.Node) -> bool:
    """Whether a node calls one of the functions that decode weights."""
    return bool(node.domain == DECODING_DOMAIN)


def decoded_weights(model: Model) -> list[gs.Variable]:
    """What decoding nodes give to the rest of the model, in graph order."""
    found = [t for node in model.graph.nodes if is_decoding(node) for t in node.outputs]
    return [t for t in found if any(not is_decoding(reader) for reader in t.outputs)]


def extract(model: Model, weights: Sequence[gs.Variable]) -> Skeleton:
    """A model without inputs whose outputs are `weights`; what is stored on disk stays there.

    Raises:
        ModelError: a decoding node depends on something that is not constant, or its function is missing.
    """
    nodes = _nodes_behind(weights)
    known = {f.name for f in model.functions if f.domain == DECODING_DOMAIN}
    if missing := sorted({str(node.op) for node in nodes} - known):
        raise ModelError(f"the functions that decode the weights are not in the model: {', '.join(missing)}")
    skeleton = Skeleton(onnx.ModelProto())
    skeleton.proto.ir_version = model.header.ir_version
    skeleton.proto.opset_import.extend(model.header.opset_import)
    skeleton.proto.functions.extend(f for f in model.functions if f.domain == DECODING_DOMAIN)
    graph = skeleton.proto.graph
    graph.name = "decode"
    graph.node.extend(encode_node(node, skeleton) for node in nodes)
    constants = {id(t): t for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    graph.initializer.extend(encode_tensor(each, skeleton) for each in constants.values())
    graph.output.extend(onnx.ValueInfoProto(name=each.name) for each in weights)
    return skeleton


def evaluate(model: Skeleton, *, optimise: bool, threads: int | None = None) -> list[Array]:
    """The outputs of a model without inputs, in any dtype.

    Args:
        model: as `extract` gives it.
        optimise: fold constants, as it happens to whoever loads the encoded model; otherwise nodes run one by one,
            which frees the memory of intermediate results at once.
        threads: of ONNX Runtime; None leaves it the choice.

    Raises:
        ModelError: ONNX Runtime cannot run it.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
        values = session.run_with_ort_values([each.name for each in session.get_outputs()], {})
    except Exception as error:  # ONNX Runtime raises many kinds
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"ONNX Runtime cannot decode the weights: {first}") from error
    return [_array(value) for value in values]


def _nodes_behind(weights: Sequence[gs.Variable]) -> list[gs.Node]:
    """The decoding nodes that `weights` depend on, each after those it reads from."""
    order: list[gs.Node] = []
    seen: set[int] = set()

    def visit(tensor: gs.Tensor) -> None:
        if isinstance(tensor, gs.Constant):
            return
        if not tensor.inputs or not is_decoding(tensor.inputs[0]):
            raise ModelError(f"'{tensor.name}' is read by a decoding node, but is not constant")
        node = tensor.inputs[0]
        if id(node) in seen:
            return
        seen.add(id(node))
        for each in node.inputs:
            visit(each)
        order.append(node)

    for weight in weights:
        visit(weight)
    return order


def _array(value: Any) -> Array:
    """A copy of what ONNX Runtime holds; its own conversion to NumPy knows no bfloat16."""
    element = value.data_type().removeprefix("tensor(").removesuffix(")")
    proto = {"float": "FLOAT", "double": "DOUBLE"}.get(element, element.upper())
    array = np.empty(value.shape(), numpy_dtype(onnx.TensorProto.DataType.Value(proto)))
    if array.size:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array
