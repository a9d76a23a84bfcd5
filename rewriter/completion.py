"""Shapes that inference leaves open, because a graph computes them while it runs, or a branch of an If decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.decode import tensor_type
from onnxpress.rewriter.encode import encode_node
from onnxpress.rewriter.extents import Extent, entries, given, option
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.ranks import infer_ranks
from onnxpress.rewriter.shapes import Shape, Shapes
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import LARGE, onnx_dtype, values_of

COMPUTED = ("Reshape", "Expand", "ConstantOfShape", "Slice")
STANDARD = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operators of com.microsoft whose outputs have the shapes of a standard one."""

SAME = (
    *("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasAdd", "SkipLayerNormalization", "RotaryEmbedding"),
    *("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "QLinearLeakyRelu", "QLinearSigmoid"),
)
"""Operators of com.microsoft whose outputs have the shape of their first input."""


def complete(model: Model, shapes: Shapes) -> Shapes:
    """Fill in what follows from computed shapes, branch by branch; what was known of a tensor only gets more exact.

    Each node whose outputs are not known entirely is looked at once, in graph order: where a vector of sizes can be
    traced back to numbers and to sizes of other tensors, it is; onnx infers the rest from what its inputs became.
    """
    completed = Shapes(dict(shapes.known))
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
        rule = _RULES.get((node.domain or "").replace("ai.onnx", ""), {}).get(node.op)
        if rule is not None:
            self._learn(node.outputs[0], rule(node, self.shapes), self.shapes.dtype(node.inputs[0]))
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
        small = [t for t in node.inputs if isinstance(t, gs.Constant) and values_of(t).nbytes < LARGE]
        return {t.name: onnx.numpy_helper.from_array(np.asarray(values_of(t).load()), t.name) for t in small}


def _strip(message: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Leave out what a fused operator has beside the standard one: an activation, something to add."""
    known = [each for each in message.attribute if each.name in schema.attributes]
    del message.attribute[:], message.input[len(schema.inputs) :]
    message.attribute.extend(known)


def _reshape(node: gs.Node, shapes: Shapes) -> Shape | None:
    source, target = given(node, 0), given(node, 1)
    wanted = None if target is None else entries(target, shapes)
    if source is None or wanted is None:
        return None
    old = shapes.shape(source)
    copies = not node.attrs.get("allowzero", 0)
    sizes: list[int | str | None] = []
    # what the input holds besides the axes that the target names: what is left for an entry of -1
    rest: list[object] | None = None if old is None else [_token(source, axis, size) for axis, size in enumerate(old)]
    product = 1
    for axis, entry in enumerate(wanted):
        if entry == 0 and copies and old is not None and axis < len(old):
            sizes.append(old[axis])
            rest = _without(rest, _token(source, axis, old[axis]))
        elif isinstance(entry, Extent):
            shape = shapes.shape(entry.tensor)
            sizes.append(None if shape is None else shape[entry.axis])
            rest = _without(rest, _token(entry.tensor, entry.axis, sizes[-1]))
        else:
            sizes.append(entry if entry is None or entry >= 0 else None)
            rest = rest if entry is not None else None
        product *= sizes[-1] if isinstance(sizes[-1], int) else 1
    if -1 in wanted and rest is not None and product:
        left = [each for each in rest if isinstance(each, int)]
        inferred = int(np.prod([each for each in (old or ()) if isinstance(each, int)], dtype=object)) // product
        if len(left) == len(rest):
            sizes[wanted.index(-1)] = inferred
    return tuple(sizes)


def _token(tensor: gs.Tensor, axis: int, size: int | str | None) -> object:
    """What stands for a size while sizes are cancelled: a number, a name, or the axis itself."""
    return (id(tensor), axis) if size is None else size


def _without(rest: list[object] | None, token: object) -> list[object] | None:
    if isinstance(token, int):
        return rest
    if rest is None or token not in rest:
        return None
    index = rest.index(token)
    return [*rest[:index], *rest[index + 1 :]]


def _expand(node: gs.Node, shapes: Shapes) -> Shape | None:
    wanted = _sizes(node.inputs[1], shapes)
    old = shapes.shape(node.inputs[0])
    if wanted is None or old is None:
        return None
    rank = max(len(wanted), len(old))
    padded = [(1,) * (rank - len(each)) + each for each in (old, wanted)]
    return tuple(_broadcast(*pair) for pair in zip(*padded, strict=True))


def _constant_of_shape(node: gs.Node, shapes: Shapes) -> Shape | None:
    return _sizes(node.inputs[0], shapes)


def _slice(node: gs.Node, shapes: Shapes) -> Shape | None:
    """Axes that it does not cut, where bounds are computed; onnx knows the rest."""
    old, axes = shapes.shape(node.inputs[0]), option(node, "axes", 3)
    if old is None:
        return None
    if axes is None:
        axes = list(range(len(old)))
    cut = {axis % len(old) for axis in axes}
    return tuple(None if axis in cut else size for axis, size in enumerate(old))


def _same(node: gs.Node, shapes: Shapes) -> Shape | None:
    return shapes.shape(node.inputs[0])


def _fused_matmul(node: gs.Node, shapes: Shapes) -> Shape | None:
    """As MatMul, of operands transposed in their last two axes."""
    left, right = (shapes.shape(each) for each in node.inputs[:2])
    attrs = node.attrs
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    if attrs.get("transBatchA", 0) or attrs.get("transBatchB", 0):
        return None
    rank = max(len(left), len(right)) - 2
    batches = [(1,) * (rank + 2 - len(each)) + each[:-2] for each in (left, right)]
    batch = tuple(_broadcast(*pair) for pair in zip(*batches, strict=True))
    return (*batch, left[-1 if attrs.get("transA", 0) else -2], right[-2 if attrs.get("transB", 0) else -1])


def _fused_attention(node: gs.Node, shapes: Shapes) -> Shape | None:
    """[B, S, C] times [C, q + k + v] gives [B, S, v]."""
    x, w = (shapes.shape(each) for each in node.inputs[:2])
    if x is None or w is None or len(x) != 3 or len(w) != 2:
        return None
    widths, columns = node.attrs.get("qkv_hidden_sizes"), w[1]
    equal = columns // 3 if isinstance(columns, int) else None
    return (*x[:2], int(widths[2]) if widths else equal)


def _multi_head(node: gs.Node, shapes: Shapes) -> Shape | None:
    """Query [B, S, q] and value [B, T, v] give [B, S, v]."""
    query, value = (None if each is None else shapes.shape(each) for each in (given(node, 0), given(node, 2)))
    if query is None or value is None or len(query) != 3 or len(value) != 3:
        return None
    return (*query[:2], value[2])


def _grouped(node: gs.Node, shapes: Shapes) -> Shape | None:
    """As its query, which does not hold keys and values beside it."""
    return None if given(node, 1) is None else _same(node, shapes)


def _sizes(target: gs.Tensor, shapes: Shapes) -> Shape | None:
    wanted = entries(target, shapes)
    if wanted is None:
        return None
    known = {id(e): shapes.shape(e.tensor) for e in wanted if isinstance(e, Extent)}
    found: list[int | str | None] = []
    for entry in wanted:
        shape = known.get(id(entry))
        found.append((None if shape is None else shape[entry.axis]) if isinstance(entry, Extent) else entry)
    return tuple(found)


def _broadcast(first: int | str | None, second: int | str | None) -> int | str | None:
    if first == 1 or first == second:
        return second
    if second == 1 or (isinstance(first, int) and not isinstance(second, int)):
        return first
    return second if isinstance(second, int) else None


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


_STANDARD: Mapping[str, Callable[[gs.Node, Shapes], Shape | None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Slice": _slice,
    "GroupNormalization": _same,
}

_FUSED: Mapping[str, Callable[[gs.Node, Shapes], Shape | None]] = {
    **dict.fromkeys(SAME, _same),
    "FusedMatMul": _fused_matmul,
    "Attention": _fused_attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
}

_RULES = {"": _STANDARD, "com.microsoft": _FUSED}
