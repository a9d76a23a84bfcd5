"""Let ONNX Runtime compute what depends on constants alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.encode import encode_node, encode_tensor
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import Skeleton, to_bytes
from onnxpress.rewriter.weights import Array, element_bits, numpy_dtype

# onnxruntime is imported where it is used: importing onnxpress stays light.


def constant_model(
    model: Model,
    nodes: Sequence[gs.Node],
    outputs: Iterable[gs.Tensor],
    *,
    functions: Iterable[onnx.FunctionProto] = (),
) -> Skeleton:
    """A model without inputs made of some nodes of another, in their order, and the constants they read.

    What is stored on disk stays there.

    Args:
        model: gives the versions.
        nodes: each after those it reads from.
        outputs: what it is to give.
        functions: that the nodes call.
    """
    skeleton = Skeleton(onnx.ModelProto())
    skeleton.proto.ir_version = max(model.header.ir_version, 4)  # before, initializers had to be inputs
    skeleton.proto.opset_import.extend(model.header.opset_import)
    skeleton.proto.functions.extend(functions)
    graph = skeleton.proto.graph
    graph.name = "constants"
    graph.node.extend(encode_node(node, skeleton) for node in nodes)
    constants = {id(t): t for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    graph.initializer.extend(encode_tensor(each, skeleton) for each in constants.values())
    graph.output.extend(onnx.ValueInfoProto(name=each.name) for each in outputs)
    return skeleton


def evaluate(model: Skeleton, *, optimise: bool, threads: int | None = None) -> list[Array]:
    """The outputs of a model without inputs, in any dtype of at least a byte.

    Args:
        model: as `constant_model` gives it.
        optimise: fold constants, as it happens to whoever loads the model; otherwise nodes run one by one, which
            frees the memory of intermediate results at once.
        threads: of ONNX Runtime; None leaves it the choice.

    Raises:
        ModelError: ONNX Runtime cannot run it, or an output is no tensor of numbers.
    """
    return [_array(value) for value in start(model, optimise=optimise, threads=threads)()]


def start(model: Skeleton, *, optimise: bool, threads: int | None = None) -> Callable[[], list[Any]]:
    """A session of a model without inputs, to run it: gives its outputs as values of ONNX Runtime.

    Args:
        model: as `constant_model` gives it.
        optimise: as for `evaluate`.
        threads: as for `evaluate`.

    Raises:
        ModelError: ONNX Runtime cannot load it, or then run it.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    with _told():
        session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run() -> list[Any]:
        with _told():
            return list(session.run_with_ort_values(names, {}))

    return run


@contextmanager
def _told() -> Iterator[None]:
    """Errors of ONNX Runtime, of many kinds, in one line."""
    try:
        yield
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"ONNX Runtime cannot compute the constants: {first}") from error


def _array(value: Any) -> Array:
    """A copy of what ONNX Runtime holds; its own conversion to NumPy knows no bfloat16, and takes float8 for uint8."""
    element = value.data_type().removeprefix("tensor(").removesuffix(")")
    name = {"float": "FLOAT", "double": "DOUBLE"}.get(element, element.upper())
    kind = dict(onnx.TensorProto.DataType.items()).get(name, onnx.TensorProto.UNDEFINED)
    if kind in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING) or element_bits(kind) < 8:
        raise ModelError(f"a result of type {value.data_type()} cannot be read from ONNX Runtime")
    array = np.empty(value.shape(), numpy_dtype(kind))
    if array.size:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array
