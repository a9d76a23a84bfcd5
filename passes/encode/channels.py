"""Weights whose channels have few values each, as codes and a book for each channel.

`binarize` and `share-kmeans` leave such weights. All channels together may have thousands of values, which one book
cannot name in few bits. The codes, a byte each, are stored as small as any weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.estimates import CALL, coded_bytes
from onnxpress.passes.encode.functions import bring_in
from onnxpress.passes.encode.loads import CALL_TIME, Load
from onnxpress.passes.kernels.arrays import Array, Codes, bits_of
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model

MOST_LEVELS = 33
"""Distinct values of a channel at most: 32 and a zero."""
_LOAD = 13
"""Bytes of places in the books, for each element."""
_TIME = 14e-9
"""Seconds for each element."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """A weight as codes and books.

    Attributes:
        codes: of each element, in the shape of the weight; zero has the code 0 where there is one.
        books: value of each code of each channel, [levels, channels].
        axis: of the channels.
    """

    codes: Codes
    books: Array
    axis: int

    @property
    def nbytes(self) -> float:
        """What it takes about."""
        return coded_bytes(np.bincount(self.codes.reshape(-1))) + self.books.nbytes + CALL

    @property
    def book_bytes(self) -> int:
        """Bytes of the books."""
        return int(self.books.nbytes)

    @property
    def load(self) -> Load:
        """What loading it takes beyond what it takes dense, the codes apart; as measured."""
        return Load(self.codes.size * (_LOAD + self.books.itemsize), CALL_TIME + _TIME * self.codes.size)

    @property
    def action(self) -> str:
        """For a report."""
        return f"{len(self.books)} values a channel"

    def restore(self) -> Array:
        """The weight, bit for bit."""
        sizes = [1] * self.codes.ndim
        sizes[self.axis] = -1
        channel = np.arange(self.books.shape[1]).reshape(sizes)
        return np.asarray(self.books[self.codes, channel])


def find(weight: Array) -> Channels | None:
    """Codes and books by the axis where they take least; None where channels have too many values.

    Args:
        weight: of 16, 32 or 64 bits an element.
    """
    if weight.ndim < 2 or weight.dtype.kind != "f" or not weight.size:
        return None
    return min(_splits(weight), key=lambda each: (each.nbytes, each.axis), default=None)


def write(model: Model, parts: Channels, name: str) -> tuple[gs.Variable, list[gs.Constant]]:
    """Add the node that computes a weight; it, and the codes.

    Args:
        model: takes the node and its function.
        parts: what the weight was taken apart into.
        name: of what the node gives.
    """
    bring_in(model, "Channels")
    levels, channels = parts.books.shape
    sizes = np.ones(parts.codes.ndim, np.int64)
    sizes[parts.axis] = channels
    codes = model.add_weight("k", parts.codes)
    others = [parts.books.reshape(levels * channels), np.array(channels, np.int32), sizes]
    inputs = [codes, *(model.add_weight("k", each) for each in others)]
    weight = gs.Variable(name, parts.books.dtype, list(parts.codes.shape))
    model.graph.nodes.append(gs.Node("Channels", "", {}, inputs, [weight], DECODING_DOMAIN))
    return weight, [codes]


def _splits(weight: Array) -> Iterator[Channels]:
    for axis in range(weight.ndim):
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        if rows.shape[1] <= 2 or len(rows) < 2 or (books := _books(rows)) is None:
            continue
        levels = max(map(len, books))
        if len(np.unique(np.concatenate(books))) == levels:
            continue  # one book for all is as short
        table = np.stack([np.concatenate([each, np.repeat(each[:1], levels - len(each))]) for each in books])
        codes = np.stack([np.searchsorted(each, bits_of(row)) for each, row in zip(books, rows, strict=True)])
        shape = np.moveaxis(weight, axis, 0).shape
        whole = np.moveaxis(codes.astype(np.uint8).reshape(shape), 0, axis)
        yield Channels(np.ascontiguousarray(whole), np.ascontiguousarray(table.T).view(weight.dtype), axis)


def _books(rows: Array) -> list[Array] | None:
    """Distinct bits of each row in order, zero first; None where a row has too many of them."""
    books = []
    for row in rows:
        if len(np.unique(bits_of(row[: 4 * MOST_LEVELS]))) > MOST_LEVELS:
            return None
        books.append(np.unique(bits_of(row)))
        if len(books[-1]) > MOST_LEVELS:
            return None
    return books
