"""Weights that are sums of sub-vectors of several codebooks, each stored as codes and a book."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.loads import CALL_TIME, Load
from onnxpress.passes.encode.vectors import Vectors, call, write_wide
from onnxpress.passes.kernels.arrays import Array, bits_of
from onnxpress.passes.staged import Staged
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """A weight as codes and books of several stages.

    Attributes:
        parts: of which the weight is the sum, in the type of the weight, one after the other; all in the same order.
    """

    parts: tuple[Vectors, ...]

    @property
    def nbytes(self) -> float:
        """What it takes about."""
        return sum(each.nbytes for each in self.parts)

    @property
    def book_bytes(self) -> int:
        """Bytes of the books."""
        return sum(each.book_bytes for each in self.parts)

    @property
    def load(self) -> Load:
        """What loading it takes beyond what it takes dense, the codes apart; as measured."""
        first, loads = self.parts[0], [each.load for each in self.parts]
        whole, count = first.size * first.books.itemsize, len(loads)
        codes = sum(each.nbytes for each in loads) - count * whole * (1 + first.turned)
        seconds = sum(each.seconds for each in loads) + CALL_TIME * count
        return Load(codes + 3 * count * whole, seconds)

    @property
    def action(self) -> str:
        """For a report."""
        return f"{len(self.parts)} stages of {self.parts[0].action}"

    def restore(self) -> Array:
        """The weight, bit for bit."""
        first, *others = self.parts
        weight = first.restore()
        for each in others:
            weight = weight + each.restore()
        return weight


def find(values: Staged, weight: Array) -> Stages | None:
    """The stages that a weight was made of; None where they do not give it any more, or its type is not added so.

    ONNX Runtime adds no bfloat16, and sums of three or more of float16 are rounded in between or not, as it likes.

    Args:
        values: of the weight.
        weight: what they are.
    """
    if weight.dtype.name == "bfloat16" or (weight.dtype == np.float16 and len(values.code.books) > 2):
        return None
    code, order = values.code, tuple(values.layout.order())
    sizes = tuple(weight.shape[axis] for axis in order)
    books = code.books.astype(weight.dtype)
    pairs = zip(code.codes, books, strict=True)
    stages = Stages(tuple(Vectors(codes.astype(np.uint16), shelves, sizes, order) for codes, shelves in pairs))
    return stages if np.array_equal(bits_of(stages.restore()), bits_of(weight)) else None


def write(model: Model, parts: Stages, name: str) -> tuple[gs.Variable, list[gs.Constant]]:
    """Add the nodes that compute a weight; it, and the codes.

    Args:
        model: takes the nodes and their functions.
        parts: what the weight was taken apart into.
        name: of what the nodes give.
    """
    first, *others = parts.parts
    wide, codes = write_wide(model, first)
    weight = gs.Variable(name, first.books.dtype, list(first.shape))
    for at, each in enumerate(others, start=1):
        more, streams = write_wide(model, each)
        last = at == len(others) and not first.turned
        wide = call(model, "Added", [wide, more], weight if last else None)
        codes += streams
    if first.turned:
        sizes = model.add_weight("k", np.array(first.sizes, np.int64))
        call(model, "Arrange", [wide, sizes], weight, attrs={"perm": first.perm})
    return weight, codes
