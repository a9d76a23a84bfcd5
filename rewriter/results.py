"""Shapes of results that onnx does not infer: sizes that are computed, and operators of com.microsoft."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.extents import Extent, entries, given, option
from onnxpress.rewriter.shapes import Shape, Shapes

COMPUTED = ("Reshape", "Expand", "ConstantOfShape", "Slice")
"""Operators whose result may get more exact though its rank is known."""

SAME = (
    *("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasAdd", "SkipLayerNormalization", "RotaryEmbedding"),
    *("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "QLinearLeakyRelu", "QLinearSigmoid"),
)
"""Operators of com.microsoft whose outputs have the shape of their first input."""


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
        if entry == 0 and copies:
            sizes.append(None if old is None or axis >= len(old) else old[axis])
            rest = _without(rest, _token(source, axis, sizes[-1]))
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
    old, axes = shapes.shape(node.inputs[0]), option(node, "axes", 3, shapes)
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
    """Query [B, S, q] and value [B, T, v] or [B, heads, T, d] give [B, S, v] or [B, S, heads·d]."""
    query, value = (None if each is None else shapes.shape(each) for each in (given(node, 0), given(node, 2)))
    if query is None or value is None or len(query) != 3 or len(value) not in (3, 4):
        return None
    if len(value) == 3:
        return (*query[:2], value[2])
    heads, width = value[1], value[3]
    return (*query[:2], heads * width if isinstance(heads, int) and isinstance(width, int) else None)


def _grouped(node: gs.Node, shapes: Shapes) -> Shape | None:
    """[B, S, heads·d], as its query where that does not hold keys and values beside it."""
    query, width = shapes.shape(node.inputs[0]), _head_width(node, shapes)
    if query is None or len(query) != 3:
        return None
    heads = int(node.attrs.get("num_heads", 0))
    packed = None if width is None else heads * width
    return (*query[:2], packed) if given(node, 1) is None else query


def _grouped_presents(node: gs.Node, shapes: Shapes) -> tuple[Shape, Shape] | None:
    """Keys and values, [B, key heads, total length, d], of which nothing but the input says how long they are."""
    query, heads = shapes.shape(node.inputs[0]), int(node.attrs.get("kv_num_heads", 0))
    if query is None or not heads:
        return None
    present: Shape = (query[0], heads, None, _head_width(node, shapes))
    return present, present


def _head_width(node: gs.Node, shapes: Shapes) -> int | None:
    """Elements of a head of GroupQueryAttention, whose query may hold keys and values behind."""
    query, heads = shapes.shape(node.inputs[0]), int(node.attrs.get("num_heads", 0))
    if given(node, 1) is None:
        heads += 2 * int(node.attrs.get("kv_num_heads", 0))
    size = query[2] if query is not None and len(query) == 3 else None
    return size // heads if isinstance(size, int) and heads and size % heads == 0 else None


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


RESULTS: Mapping[tuple[str, str], Callable[[gs.Node, Shapes], Shape | None]] = {
    ("", "Reshape"): _reshape,
    ("", "Expand"): _expand,
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Slice"): _slice,
    ("", "GroupNormalization"): _same,
    **{("com.microsoft", op): _same for op in SAME},
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
    ("com.microsoft", "Attention"): _fused_attention,
    ("com.microsoft", "MultiHeadAttention"): _multi_head,
    ("com.microsoft", "GroupQueryAttention"): _grouped,
}
"""By domain ("" for the standard one) and operator."""

FURTHER: Mapping[tuple[str, str], Callable[[gs.Node, Shapes], Sequence[Shape] | None]] = {
    ("com.microsoft", "GroupQueryAttention"): _grouped_presents,
}
"""The same of the outputs behind the first, which have the dtype of the first input."""
