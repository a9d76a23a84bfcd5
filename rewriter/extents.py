"""What tensors of sizes are made of: the shapes that a graph computes while it runs, traced back entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.weights import read, values_of

LONGEST = 64
"""Entries a tensor of sizes may have; longer ones are no shapes."""

DEPTH = 100
"""Nodes that are traced back at most."""

TRANSPARENT = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
"""Operators that keep the entries of a vector of sizes, and their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The size that an axis of a tensor has at run time."""

    tensor: gs.Tensor
    axis: int

    def same(self, other: Entry) -> bool:
        """Whether `other` is the size of the same axis."""
        return isinstance(other, Extent) and other.tensor is self.tensor and other.axis == self.axis


Entry: TypeAlias = int | Extent | None
"""A number, the size of an axis, or something else."""

Entries: TypeAlias = tuple[Entry, ...]


def entries(tensor: gs.Tensor, shapes: Shapes, *, depth: int = DEPTH) -> Entries | None:
    """The entries of an integer scalar or vector, in order; None where even their number is unknown."""
    if isinstance(tensor, gs.Constant):
        numbers = integers(tensor)
        return None if numbers is None else tuple(numbers)
    producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    traced = None if producer is None or not depth else _trace(producer, shapes, depth - 1)
    if traced is not None:
        return traced
    shape = shapes.static(tensor)
    if shape is None or len(shape) > 1 or not 0 < int(np.prod(shape)) <= LONGEST:
        return None
    return (None,) * int(np.prod(shape))


def extent_range(node: gs.Node, rank: int) -> range:
    """The axes whose sizes a Shape gives."""
    start, end, _ = slice(node.attrs.get("start", 0), node.attrs.get("end")).indices(rank)
    return range(start, end)


def integers(tensor: gs.Tensor | None) -> list[int] | None:
    """The numbers of a constant integer scalar or vector; None for anything else."""
    if isinstance(tensor, gs.Variable) and len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        tensor = tensor.inputs[0].attrs.get("value")
    if not isinstance(tensor, gs.Constant):
        return None
    values = values_of(tensor)
    if values.dtype.kind not in "iu" or len(values.shape) > 1 or int(np.prod(values.shape)) > LONGEST:
        return None
    return [int(each) for each in np.atleast_1d(read(tensor))]


def given(node: gs.Node, index: int) -> gs.Tensor | None:
    """The input of a node at `index`; None where it is left out."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return None if tensor is None or tensor.is_empty() else tensor


def option(node: gs.Node, name: str, index: int) -> list[int] | None:
    """Integers that stand in an attribute in older operator sets and in a constant input in newer ones.

    None where they are left out or computed; `given` tells the two apart.
    """
    values = node.attrs.get(name)
    if values is None:
        return integers(given(node, index))
    return [int(each) for each in np.atleast_1d(np.asarray(values))]


def readers(tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
    """Who reads a tensor, and at which input."""
    seen: set[int] = set()
    for node in tensor.outputs:
        if id(node) not in seen:
            seen.add(id(node))
            yield from ((node, index) for index, each in enumerate(node.inputs) if each is tensor)


def _trace(node: gs.Node, shapes: Shapes, depth: int) -> Entries | None:
    if node.domain not in (None, "", "ai.onnx"):
        return None
    if node.op == "Constant":
        numbers = integers(node.outputs[0])
        return None if numbers is None else tuple(numbers)
    if not node.inputs:
        return None
    first = node.inputs[0]
    if node.op == "Shape":
        shape = shapes.shape(first)
        return None if shape is None else tuple(Extent(first, axis) for axis in extent_range(node, len(shape)))
    if node.op == "Concat":
        joined: Entries = ()
        for each in node.inputs:
            part = entries(each, shapes, depth=depth)
            if part is None or len(joined) + len(part) > LONGEST:
                return None
            joined += part
        return joined
    held = entries(first, shapes, depth=depth) if node.op in (*TRANSPARENT, "Gather", "Slice") else None
    if held is None or node.op in TRANSPARENT:
        return held
    return _gather(node, held) if node.op == "Gather" else _slice(node, held)


def _gather(node: gs.Node, held: Entries) -> Entries | None:
    picks = integers(node.inputs[1])
    if picks is None or any(not -len(held) <= each < len(held) for each in picks):
        return None
    return tuple(held[each] for each in picks)


def _slice(node: gs.Node, held: Entries) -> Entries | None:
    starts, ends = option(node, "starts", 1), option(node, "ends", 2)
    steps = option(node, "steps", 4) or ([1] if given(node, 4) is None else None)
    if starts is None or ends is None or steps is None or not steps[0]:
        return None
    return held[slice(starts[0], ends[0], steps[0])] if steps[0] > 0 else None
