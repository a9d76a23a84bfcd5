"""Shapes that inference leaves open, because a graph computes them while it runs, or a branch of an If decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.decode import tensor_type
from onnxpress.rewriter.encode import encode_node
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.ranks import infer_ranks
from onnxpress.rewriter.results import COMPUTED, FURTHER, RESULTS
from onnxpress.rewriter.shapes import Shape, Shapes
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import LARGE, onnx_dtype, values_of

STANDARD = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operators of com.microsoft whose outputs have the shapes of a standard one."""


def complete(model: Model, shapes: Shapes) -> Shapes:
    """Fill in what follows from computed shapes, branch by branch; what was known of a tensor only gets more exact.

    Each node whose outputs are not known entirely is looked at once, in graph order: where a vector of sizes can be
    traced back to numbers and to sizes of other tensors, it is; onnx infers the rest from what its inputs became.
    """
    completed = Shapes(dict(shapes.known), shapes.defaults)
    _Completion(model, completed).graph(model.graph)
    return completed


class _Completion:
    """One sweep over all graphs."""

    def __init__(self, model: Model, shapes: Shapes) -> None:
        self.model, self.shapes = model, shapes
        self.ranks = infer_ranks(model, shapes)
        self.better: set[int] = set()
        self.opsets = [onnx.helper.make_opsetid(o.domain, o.version) for o in model.header.opset_import]

    def graph(self, graph: gs.Graph) -> None:
        """All nodes, those of subgraphs before the node that holds them."""
        for node in graph.nodes:
            for inner in node.attrs.values():
                if isinstance(inner, gs.Graph):
                    self.graph(inner)
            if self._open(node):
                self._node(node)

    def _open(self, node: gs.Node) -> bool:
        if all(self.shapes.static(t) is not None for t in node.outputs if t.name):
            return False
        unknown = any(self.shapes.shape(t) is None for t in node.outputs if t.name)
        return unknown or node.op in (*COMPUTED, "If") or any(id(t) in self.better for t in node.inputs)

    def _node(self, node: gs.Node) -> None:
        key = ("" if (node.domain or "") in DEFAULT_DOMAINS else node.domain, node.op)
        if (rule := RESULTS.get(key)) is not None:
            further = FURTHER[key](node, self.shapes) if key in FURTHER else None
            for tensor, shape in zip(node.outputs, [rule(node, self.shapes), *(further or ())], strict=False):
                self._learn(tensor, shape, self.shapes.dtype(node.inputs[0]))
        elif node.op == "If":
            self._branches(node)
        if self._open(node) and not any(isinstance(each, gs.Graph) for each in node.attrs.values()):
            for tensor, (dtype, shape) in zip(node.outputs, self._by_onnx(node), strict=False):
                self._learn(tensor, shape, dtype)

    def _branches(self, node: gs.Node) -> None:
        """An output is what the branches that may run have in common."""
        choices = self.ranks.choices.get(id(node.inputs[0]), frozenset({0, 1}))
        branches = [node.attrs[name] for choice, name in enumerate(("else_branch", "then_branch")) if choice in choices]
        for index, tensor in enumerate(node.outputs):
            ends = [branch.outputs[index] for branch in branches]
            possible = self.ranks.ranks.get(id(tensor))
            known = [self.shapes.shape(end) for end in ends]
            fitting = [s for s in known if s is not None and (possible is None or len(s) in possible)]
            unknown = [end for end, shape in zip(ends, known, strict=True) if shape is None]
            certain = all(possible and self._excluded(end, possible) for end in unknown)
            self._learn(tensor, _joined(fitting) if certain else None, self.shapes.dtype(ends[0]))

    def _excluded(self, end: gs.Tensor, possible: frozenset[int]) -> bool:
        ranks = self.ranks.ranks.get(id(end))
        return ranks is not None and not ranks & possible

    def _learn(self, tensor: gs.Tensor, shape: Shape | None, dtype: np.dtype[Any] | None) -> None:
        if not tensor.name or isinstance(tensor, gs.Constant):
            return
        old = self.shapes.shape(tensor)
        merged = _more_exact(old, shape)
        dtype = self.shapes.dtype(tensor) or dtype
        self.shapes.known[id(tensor)] = (tensor, dtype, merged)
        if merged != old:
            self.better.add(id(tensor))

    def _by_onnx(self, node: gs.Node) -> list[tuple[np.dtype[Any] | None, Shape | None]]:
        op = STANDARD.get(node.op, node.op) if node.domain == "com.microsoft" else node.op
        version = self.model.opset if op != node.op else self.model.opset_of(node.domain or "")
        try:
            schema = onnx.defs.get_schema(op, version, "" if op != node.op else node.domain or "")
            message = encode_node(node, Skeleton(onnx.ModelProto()))
            if op != node.op:
                message.op_type, message.domain = op, schema.domain
                _strip(message, schema)
            found = onnx.shape_inference.infer_node_outputs(
                schema, message, self._types(node), self._contents(node), opset_imports=self.opsets
            )
        except Exception:  # any failure here only means that less is known
            return []
        values = [onnx.ValueInfoProto(name=t.name, type=found[t.name]) for t in node.outputs if t.name in found]
        return [(dtype, None if shape is None else tuple(shape)) for dtype, shape in map(tensor_type, values)]

    def _types(self, node: gs.Node) -> dict[str, onnx.TypeProto]:
        types = {}
        for tensor in node.inputs:
            dtype, shape = self.shapes.dtype(tensor), self.shapes.shape(tensor)
            if tensor.name and dtype is not None:
                sizes = None if shape is None else list(shape)
                types[tensor.name] = onnx.helper.make_tensor_type_proto(onnx_dtype(dtype), sizes)
        return types

    def _contents(self, node: gs.Node) -> dict[str, onnx.TensorProto]:
        constants = [t for t in node.inputs if isinstance(t, gs.Constant) and id(t) not in self.shapes.defaults]
        small = [t for t in constants if values_of(t).nbytes < LARGE]
        return {t.name: onnx.numpy_helper.from_array(np.asarray(values_of(t).load()), t.name) for t in small}


def _strip(message: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Leave out what a fused operator has beside the standard one: an activation, something to add."""
    known = [each for each in message.attribute if each.name in schema.attributes]
    del message.attribute[:], message.input[len(schema.inputs) :]
    message.attribute.extend(known)


def _joined(alternatives: Sequence[Shape]) -> Shape | None:
    if not alternatives or len({len(each) for each in alternatives}) > 1:
        return None
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*alternatives, strict=True))


def _more_exact(old: Shape | None, new: Shape | None) -> Shape | None:
    if old is None or new is None or len(old) != len(new):
        return new if old is None else old
    return tuple(
        b if isinstance(b, int) and not isinstance(a, int) else (b if a is None else a)
        for a, b in zip(old, new, strict=True)
    )
