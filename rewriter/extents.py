"""What tensors of sizes are made of: the shapes that a graph computes while it runs, traced back entry by entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def entries(tensor: gs.Tensor, shapes: Shapes) -> Entries | None:
    """The entries of an integer scalar or vector, in order; None where even their number is unknown."""
    return _Trace(shapes).entries(tensor, DEPTH)


def extent_range(node: gs.Node, rank: int) -> range:
    """The axes whose sizes a Shape gives."""
    start, end, _ = slice(node.attrs.get("start", 0), node.attrs.get("end")).indices(rank)
    return range(start, end)


def integers(tensor: gs.Tensor | None, shapes: Shapes) -> list[int] | None:
    """The numbers of an integer scalar or vector that no caller can override; None for anything else."""
    if isinstance(tensor, gs.Variable) and len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        tensor = tensor.inputs[0].attrs.get("value")
    if not isinstance(tensor, gs.Constant) or id(tensor) in shapes.defaults:
        return None
    values = values_of(tensor)
    if values.dtype.kind not in "iu" or len(values.shape) > 1 or int(np.prod(values.shape)) > LONGEST:
        return None
    return [int(each) for each in np.atleast_1d(read(tensor))]


def given(node: gs.Node, index: int) -> gs.Tensor | None:
    """The input of a node at `index`; None where it is left out."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return None if tensor is None or tensor.is_empty() else tensor


def option(node: gs.Node, name: str, index: int, shapes: Shapes) -> list[int] | None:
    """Integers that stand in an attribute in older operator sets and in a constant input in newer ones.

    None where they are left out or computed; `given` tells the two apart.
    """
    values = node.attrs.get(name)
    if values is None:
        return integers(given(node, index), shapes)
    return [int(each) for each in np.atleast_1d(np.asarray(values))]


def readers(tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
    """Who reads a tensor, and at which input."""
    seen: set[int] = set()
    for node in tensor.outputs:
        if id(node) not in seen:
            seen.add(id(node))
            yield from ((node, index) for index, each in enumerate(node.inputs) if each is tensor)


class _Trace:
    """One walk back from a tensor; entries of others are kept, for the same sizes may be joined over and over."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self._found: dict[tuple[int, int], Entries | None] = {}

    def entries(self, tensor: gs.Tensor, depth: int) -> Entries | None:
        """The entries of a tensor, through at most `depth` nodes."""
        key = (id(tensor), depth)
        if key not in self._found:
            self._found[key] = self._of(tensor, depth)
        return self._found[key]

    def _of(self, tensor: gs.Tensor, depth: int) -> Entries | None:
        if isinstance(tensor, gs.Constant) and id(tensor) not in self.shapes.defaults:
            numbers = integers(tensor, self.shapes)
            return None if numbers is None else tuple(numbers)
        producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        traced = None if producer is None or not depth else self._through(producer, depth - 1)
        if traced is not None:
            return traced
        shape = self.shapes.static(tensor)
        if shape is None or len(shape) > 1 or not 0 < int(np.prod(shape)) <= LONGEST:
            return None
        return (None,) * int(np.prod(shape))

    def _through(self, node: gs.Node, depth: int) -> Entries | None:
        if node.domain not in (None, "", "ai.onnx"):
            return None
        if node.op == "Constant":
            numbers = integers(node.outputs[0], self.shapes)
            return None if numbers is None else tuple(numbers)
        if not node.inputs:
            return None
        first = node.inputs[0]
        if node.op == "Shape":
            shape = self.shapes.shape(first)
            return None if shape is None else tuple(Extent(first, axis) for axis in extent_range(node, len(shape)))
        if node.op == "Concat":
            return self._joined(node.inputs, depth)
        held = self.entries(first, depth) if node.op in (*TRANSPARENT, "Gather", "Slice") else None
        if held is None or node.op in TRANSPARENT:
            return held
        return self._gathered(node, held) if node.op == "Gather" else self._sliced(node, held)

    def _joined(self, pieces: Sequence[gs.Tensor], depth: int) -> Entries | None:
        joined: Entries = ()
        for each in pieces:
            part = self.entries(each, depth)
            if part is None or len(joined) + len(part) > LONGEST:
                return None
            joined += part
        return joined

    def _gathered(self, node: gs.Node, held: Entries) -> Entries | None:
        picks = integers(node.inputs[1], self.shapes)
        if picks is None or any(not -len(held) <= each < len(held) for each in picks):
            return None
        return tuple(held[each] for each in picks)

    def _sliced(self, node: gs.Node, held: Entries) -> Entries | None:
        starts, ends = (option(node, name, index, self.shapes) for name, index in (("starts", 1), ("ends", 2)))
        steps = option(node, "steps", 4, self.shapes) if given(node, 4) is not None else [1] * len(starts or ())
        if starts is None or ends is None or steps is None or not len(starts) == len(ends) == len(steps) <= 1:
            return None
        for start, end, step in zip(starts, ends, steps, strict=True):  # none where it cuts no axis
            if step <= 0:
                return None
            held = held[slice(start, end, step)]
        return held
