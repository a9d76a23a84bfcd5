"""Weights of few distinct sub-vectors, as codes and a book of these, or a book for each place of a row.

`share-vectors` leaves such weights where it has one stage. (What several stages add up to has too many different
sub-vectors; see `stages.py`.) Of the weight alone it is found out how long they are, and along which axis they lie. The
codes, a byte each, are stored as small as any weight; of more than 256 sub-vectors the low byte of the codes and the
bits above are apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.estimates import CALL, coded_bytes
from onnxpress.passes.encode.functions import bring_in
from onnxpress.passes.encode.loads import CALL_TIME, Load
from onnxpress.passes.kernels.arrays import Array, Codes
from onnxpress.passes.kernels.subvectors import find_codes, promising
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model

LONGEST = 32
"""Entries of a sub-vector at most."""
_BYTE = 256
_LOAD, _LOAD_WIDE, _LOAD_PLACED = 6, 26, 10
"""Bytes of memory for each code, and where codes are of two parts, or of a book for each place."""
_TIME, _COPY_TIME, _TURN_TIME = 10e-9, 1e-9, 4e-9
"""Seconds for each code, for each element, and for each where axes are turned."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """A weight as codes and books.

    Attributes:
        codes: of each sub-vector, [rows, places]; the most frequent one has the code 0.
        books: the sub-vectors, [1 or places, vectors, length], by place where there are several.
        sizes: of the matrix of rows before it is cut, with all axes of the weight in the order `order`.
        order: of the axes of the weight, as they are cut.
    """

    codes: Codes
    books: Array
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of the weight."""
        return int(self.codes.size * self.books.shape[2])

    @property
    def streams(self) -> list[Array]:
        """The codes, in bytes: all of them, or the low bytes and what is above."""
        if self.books.shape[1] <= _BYTE:
            return [self.codes.astype(np.uint8)]
        return [(self.codes & 255).astype(np.uint8), (self.codes >> 8).astype(np.uint8)]

    @property
    def nbytes(self) -> float:
        """What it takes about."""
        streams = self.streams
        coded = sum(coded_bytes(np.bincount(each.reshape(-1))) for each in streams)
        return coded + self.books.nbytes + CALL * len(streams)

    @property
    def load(self) -> Load:
        """What loading it takes beyond what it takes dense, the codes apart; as measured."""
        wide, placed = self.books.shape[1] > _BYTE, len(self.books) > 1
        index = _LOAD + _LOAD_WIDE * wide + _LOAD_PLACED * placed
        whole = self.size * self.books.itemsize
        time = self.codes.size * _TIME * (1 + wide + placed) + self.size * (_COPY_TIME + _TURN_TIME * self.turned)
        return Load(whole * (1 + self.turned) + self.codes.size * index, CALL_TIME * (1 + wide + placed) + time)

    @property
    def book_bytes(self) -> int:
        """Bytes of the books."""
        return int(self.books.nbytes)

    @property
    def perm(self) -> list[int]:
        """Where each axis of the weight lies as they are cut."""
        return [int(each) for each in np.argsort(self.order)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return tuple(self.sizes[at] for at in self.perm)

    @property
    def turned(self) -> bool:
        """Whether the axes come in another order than that of the weight."""
        return self.order != tuple(range(len(self.order)))

    @property
    def action(self) -> str:
        """For a report."""
        shelves, count, length = self.books.shape
        return f"{count} vectors of {length}{' a place' if shelves > 1 else ''}"

    def restore(self) -> Array:
        """The weight, bit for bit."""
        place = np.arange(self.codes.shape[1]) if len(self.books) > 1 else 0
        rows = self.books[place, self.codes]
        return np.asarray(rows.reshape(self.sizes).transpose(self.perm))


def find(weight: Array, most: float = math.inf) -> Vectors | None:
    """Codes and books by the axes and the length with which they take least; None where there are too many vectors.

    Args:
        weight: of whole bytes an element, up to eight.
        most: bytes that they may take; what seems to take more is not looked at any further.
    """
    if weight.ndim < 2 or not weight.size or weight.itemsize not in (1, 2, 4, 8):
        return None
    found = [each for order in _orders(weight.ndim) for each in _cut(weight, order, most)]
    return min(found, key=lambda each: each.nbytes, default=None)


def write(model: Model, parts: Vectors, name: str) -> tuple[gs.Variable, list[gs.Constant]]:
    """Add the nodes that compute a weight; it, and the codes.

    Args:
        model: takes the nodes and their functions.
        parts: what the weight was taken apart into.
        name: of what the nodes give.
    """
    weight = gs.Variable(name, parts.books.dtype, list(parts.shape))
    inputs, codes = _inputs(model, parts)
    if parts.turned:
        call(model, "Turned", inputs, weight, attrs={"perm": parts.perm})
    else:
        call(model, "Vectors", inputs, weight)
    return weight, codes


def write_wide(model: Model, parts: Vectors) -> tuple[gs.Variable, list[gs.Constant]]:
    """The same without a name, and with the axes as they were cut."""
    inputs, codes = _inputs(model, parts)
    return call(model, "Vectors", inputs), codes


def call(
    model: Model,
    op: str,
    inputs: Sequence[gs.Tensor],
    result: gs.Variable | None = None,
    *,
    attrs: dict[str, object] | None = None,
) -> gs.Variable:
    """Add a call of a decoding function; without a result, for it is gone once a session is there."""
    bring_in(model, op)
    result = result or gs.Variable(model.names.fresh("k"))
    model.graph.nodes.append(gs.Node(op, "", attrs or {}, list(inputs), [result], DECODING_DOMAIN))
    return result


def _inputs(model: Model, parts: Vectors) -> tuple[list[gs.Tensor], list[gs.Constant]]:
    """What `Vectors` and `Turned` take, and the codes."""
    codes = [model.add_weight("k", each) for each in parts.streams]
    index: gs.Tensor = codes[0] if len(codes) == 1 else call(model, "Wide", codes)
    shelves, count, length = parts.books.shape
    if shelves > 1:
        ends = [model.add_weight("k", np.array(each, np.int32)) for each in (count, shelves * count)]
        index = call(model, "Placed", [index, *ends])
    others = parts.books.reshape(-1, length), np.array(parts.sizes, np.int64)
    return [index, *(model.add_weight("k", each) for each in others)], codes


def _orders(rank: int) -> Iterator[tuple[int, ...]]:
    """As the axes are, with the first two and with the last two the other way round: outputs before inputs."""
    order = tuple(range(rank))
    yield from {order: None, (1, 0, *order[2:]): None, (*order[:-2], rank - 1, rank - 2): None}


def _cut(weight: Array, order: tuple[int, ...], most: float) -> Iterator[Vectors]:
    """All that is found by one order of axes: by one book, and where its codes are no bytes by one for each place."""
    wide = weight.transpose(order)
    first = next((size for size in wide.shape[:-1] if size > 1), 1)
    rows = wide.reshape(first, -1)
    for length in range(2, min(LONGEST, rows.shape[1]) + 1):
        if rows.shape[1] % length:
            continue
        few = promising(rows, length)
        if few and not promising(rows, length, most):
            continue
        found = find_codes(rows, length) if few else None
        if found is not None:
            yield Vectors(found[0], found[1][np.newaxis], wide.shape, order)
        if found is not None and len(found[1]) <= _BYTE:
            continue
        for width in {rows.shape[1]: None, wide.shape[-1]: None}:  # of several matrices, their rows are shorter
            if width % length == 0 and (shelves := _by_place(wide.reshape(-1, width), length)) is not None:
                yield Vectors(*shelves, wide.shape, order)


def _by_place(rows: Array, length: int) -> tuple[Codes, Array] | None:
    """Codes, and books [places, vectors, length] in which the shorter ones repeat their first vector."""
    places = rows.shape[1] // length
    if places < 2:
        return None
    found = []
    for start in range(0, rows.shape[1], length):
        part = rows[:, start : start + length]
        each = find_codes(part, length, _BYTE) if promising(part, length) else None
        if each is None:
            return None
        found.append(each)
    count = max(len(book) for _, book in found)
    books = [np.concatenate([book, np.repeat(book[:1], count - len(book), axis=0)]) for _, book in found]
    return np.concatenate([codes for codes, _ in found], axis=1), np.stack(books)
