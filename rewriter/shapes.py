"""Shapes and dtypes of all tensors, as far as anybody can tell; never a failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.decode import tensor_type
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import values_of

logger = logging.getLogger(__name__)
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is known of the tensors of a model, as it was when inferred.

    Attributes:
        known: by identity: the tensor, its element type, its sizes.
        defaults: identities of the initializers that are inputs of the model too: a caller may give other values.
    """

    known: dict[int, tuple[gs.Tensor, np.dtype[Any] | None, Shape | None]] = field(default_factory=dict)
    defaults: frozenset[int] = frozenset()

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Sizes (a str or None is a dynamic one); None where the rank is unknown."""
        if isinstance(tensor, gs.Constant):
            return tuple(tensor.shape)
        return self._known(tensor)[1]

    def static(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """Sizes if all are fixed, else None."""
        shape = self.shape(tensor)
        if shape is None or not all(isinstance(size, int) for size in shape):
            return None
        return tuple(size for size in shape if isinstance(size, int))

    def dtype(self, tensor: gs.Tensor) -> np.dtype[Any] | None:
        """Element type, None where unknown."""
        if isinstance(tensor, gs.Constant):
            dtype: np.dtype[Any] = values_of(tensor).dtype
            return dtype
        return self._known(tensor)[0]

    def _known(self, tensor: gs.Tensor) -> tuple[np.dtype[Any] | None, Shape | None]:
        _, dtype, shape = self.known.get(id(tensor), (tensor, None, None))
        return dtype, shape


def infer_shapes(model: Model) -> Shapes:
    """Infer what can be inferred: by onnx, then by ONNX Runtime's symbolic inference if sympy is installed.

    Works on the model's skeleton, so weights are not read and size does not matter.
    """
    proto = model.skeleton().proto
    inferred = _by_onnx(proto)
    shapes = Shapes(defaults=frozenset(id(t) for t in model.graph.inputs if isinstance(t, gs.Constant)))
    _collect(model.graph, inferred.graph, shapes)
    unknown = [n for _, n in nodes(model.graph) if any(shapes.shape(t) is None for t in n.outputs if t.name)]
    # the symbolic inference (seen in ONNX Runtime 1.32) gives an If the shape of one branch where branches disagree
    if unknown and not any(node.op == "If" for node in unknown):
        better = _by_symbols(inferred)
        if better is not None:
            _collect(model.graph, better.graph, shapes)
    return shapes


def _by_onnx(proto: onnx.ModelProto) -> onnx.ModelProto:
    _declare_sparse(proto.graph)
    _mask_splits(proto.graph, {each.name for each in proto.graph.initializer})
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # any failure here only means that less is known
        logger.info("shape inference by onnx failed: %s", error)
        return proto


def _declare_sparse(graph: onnx.GraphProto) -> None:
    """Let sparse initializers look like others: to onnx (seen in 1.23) they are of a type that no operator reads."""
    for each in graph.sparse_initializer:
        tensor = graph.initializer.add(name=each.values.name, dims=each.dims, data_type=each.values.data_type)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="sparse")
    del graph.sparse_initializer[:]
    for attribute in (each for node in graph.node for each in node.attribute):
        if attribute.type == onnx.AttributeProto.GRAPH:
            _declare_sparse(attribute.g)


def _mask_splits(graph: onnx.GraphProto, constant: set[str]) -> None:
    """Hide each Split whose sizes are computed: onnx (seen in 1.23) takes its parts for equal, which is wrong."""
    constant = constant | {out for node in graph.node if node.op_type == "Constant" for out in node.output}
    for node in graph.node:
        if node.op_type == "Split" and len(node.input) > 1 and node.input[1] not in constant | {""}:
            node.domain = "masked"
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _mask_splits(attribute.g, constant | {each.name for each in attribute.g.initializer})


def _by_symbols(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

        # not its infer_shapes, which writes a file into the working directory where something stays unknown
        symbolic = SymbolicShapeInference(2**31 - 1, False, 0, 0)
        symbolic._preprocess(proto)
        while symbolic.run_:
            symbolic._infer_impl()
        symbolic._update_output_from_vi()
        better: onnx.ModelProto = symbolic.out_mp_
    except ImportError:
        return None
    except Exception as error:  # as above
        logger.info("symbolic shape inference failed: %s", error)
        return None
    return better


def _collect(graph: gs.Graph, proto: onnx.GraphProto, shapes: Shapes) -> None:
    by_name = {value.name: value for value in [*proto.value_info, *proto.input, *proto.output]}
    for tensor in _tensors(graph):
        if (value := by_name.get(tensor.name)) is not None:
            dtype, shape = tensor_type(value)
            dtype = dtype if dtype is not None else shapes.dtype(tensor)
            shapes.known[id(tensor)] = (tensor, dtype, shapes.shape(tensor) if shape is None else tuple(shape))
    if len(proto.node) < len(graph.nodes):
        return
    for node, message in zip(graph.nodes, proto.node, strict=False):
        inner = {a.name: a.g for a in message.attribute if a.type == onnx.AttributeProto.GRAPH}
        for key, value in node.attrs.items():
            if isinstance(value, gs.Graph) and key in inner and message.op_type == node.op:
                _collect(value, inner[key], shapes)


def _tensors(graph: gs.Graph) -> Iterator[gs.Tensor]:
    yield from (t for t in graph.inputs if isinstance(t, gs.Variable))
    for node in graph.nodes:
        yield from (t for t in node.outputs if t.name)
