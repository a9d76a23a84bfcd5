"""Maxout (Goodfellow et al., 2013): outputs cut into equal pieces, of which the largest values are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_graphsurgeon as gs

from onnxpress.rewriter.model import DEFAULT_DOMAINS
from onnxpress.rewriter.weights import values_of

CUTS = ("Slice", "Split")
"""Operators that cut."""


def pieces_of(tensor: gs.Tensor, count: int, axes: Collection[int], public: Collection[int]) -> int | None:
    """How many equal pieces a tensor is cut into of which nothing but the largest values are read.

    Args:
        tensor: is cut.
        count: its entries along the axis that is cut.
        axes: that axis, as operators may name it.
        public: tensors that leave the model, by id.

    Returns:
        None where something else happens to it.
    """
    pieces: list[tuple[int, int, gs.Tensor]] = []
    for node in tensor.outputs:
        if (node.domain or "") not in DEFAULT_DOMAINS or node.inputs[0] is not tensor:
            return None
        spans = _sliced(node, count, axes) if node.op == "Slice" else _split(node, count, axes)
        pieces += [(*span, output) for span, output in zip(spans, node.outputs, strict=False)]
    size = count // max(1, len(pieces))
    wanted = [(begin, begin + size) for begin in range(0, count, max(1, size))]
    if len(pieces) < 2 or sorted(span[:2] for span in pieces) != wanted:
        return None
    return len(pieces) if _only_largest([each for _, _, each in pieces], public) else None


def _only_largest(pieces: Sequence[gs.Tensor], public: Collection[int]) -> bool:
    """Whether nothing reads pieces but Max, until one tensor is left."""
    left = {id(each): each for each in pieces}
    while len(left) > 1:
        readers = (each.outputs[0] for each in left.values() if len(each.outputs) == 1)
        node = next((n for n in readers if n.op == "Max" and all(id(each) in left for each in n.inputs)), None)
        if node is None:
            return False
        for each in node.inputs:
            if id(each) in public or len(each.outputs) != 1:
                return False
            left.pop(id(each))
        left[id(node.outputs[0])] = node.outputs[0]
    return True


def _sliced(node: gs.Node, count: int, axes: Collection[int]) -> list[tuple[int, int]]:
    """The entries that a Slice reads; none where it does not read a stretch of the axis."""
    given = [_numbers(each) for each in node.inputs[1:5]]
    if len(given) < 3 or any(each is None or len(each) != 1 for each in given):
        return []
    begin, end, axis, *step = (each[0] for each in given if each)
    if axis not in axes or step not in ([], [1]):
        return []
    first, last = (min(count, place + count if place < 0 else place) for place in (begin, end))
    return [(first, last)]


def _split(node: gs.Node, count: int, axes: Collection[int]) -> list[tuple[int, int]]:
    """The entries of each output of a Split into equal parts; none where it is another."""
    parts = len(node.outputs)
    sizes = _numbers(node.inputs[1]) if len(node.inputs) > 1 else node.attrs.get("split", [count // parts] * parts)
    if node.op != "Split" or node.attrs.get("axis", 0) not in axes or sizes is None:
        return []
    size = count // parts
    return [(index * size, index * size + size) for index in range(parts)] if list(sizes) == [size] * parts else []


def _numbers(tensor: gs.Tensor) -> list[int] | None:
    """Of a constant list."""
    return [int(each) for each in values_of(tensor).load().reshape(-1)] if isinstance(tensor, gs.Constant) else None
