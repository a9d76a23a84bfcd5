"""Few distinct sub-vectors in a matrix: whether it may be so, and which they are. All by the stored bits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Codes, bits_of

MOST = 4096
"""Distinct sub-vectors at most."""

_SAMPLE = 1024
"""Sub-vectors that are looked at first. Of 4096 equally frequent ones, so many hold 906 different ones on average."""
_COUNTED = 1 << 16
"""Sub-vectors whose entropy is looked at."""
_DIFFERENT = 0.95
"""Part of a sample from which on it holds hardly any twice."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(31)

_Marks = NDArray[np.uint64]


def promising(rows: Array, length: int, most: float = math.inf) -> bool:
    """Whether a few sub-vectors, drawn from all over a matrix, hold enough of them twice for a codebook.

    Args:
        rows: [rows, k]; `length` divides k.
        length: of a sub-vector.
        most: bytes that codes and vectors may take. By the entropy of some of them, which is not above that of all.
    """
    drawn = _drawn(rows, length, _SAMPLE)
    if drawn.size > _DIFFERENT * drawn.sum():
        return False
    if math.isinf(most):
        return True
    counts = _drawn(rows, length, _COUNTED)
    share = counts / counts.sum()
    bits = -float((share * np.log2(share)).sum())
    return bits * rows.size / length / 8 + counts.size * length * rows.itemsize <= most


def _drawn(rows: Array, length: int, sample: int) -> NDArray[np.int64]:
    """How often each sub-vector comes among some, or all where these are fewer."""
    places = rows.shape[1] // length
    total = len(rows) * places
    drawn = np.random.default_rng(length).integers(0, total, sample) if total > sample else np.arange(total)
    row, place = np.divmod(np.unique(drawn), places)
    chosen = rows[row[:, np.newaxis], place[:, np.newaxis] * length + np.arange(length)]
    return np.unique(_marks(chosen, length), return_counts=True)[1]


def find_codes(rows: Array, length: int, limit: int = MOST) -> tuple[Codes, Array] | None:
    """Number the distinct sub-vectors, the most frequent first.

    Works with some rows at once, so that little memory is needed besides the codes.

    Args:
        rows: [rows, k] of elements of 1, 2, 4 or 8 bytes; `length` divides k.
        length: of a sub-vector.
        limit: distinct sub-vectors at most, up to 65,536.

    Returns:
        Codes uint16 [rows, k / length], and the sub-vectors [count, length] in the dtype of `rows`, with
        `vectors[codes].reshape(rows.shape)` bit for bit the matrix; None where there are more than `limit`.
    """
    known: _Marks = np.empty(0, np.uint64)
    for _, block in _blocks(rows):
        known = np.union1d(known, _marks(block, length))
        if known.size > limit:
            return None
    codes = np.empty((len(rows), rows.shape[1] // length), np.uint16)
    vectors = np.zeros((known.size, length), np.dtype(f"u{rows.dtype.itemsize}"))
    counts = np.zeros(known.size, np.int64)
    for first, block in _blocks(rows):
        found, parts = np.searchsorted(known, _marks(block, length)), bits_of(block).reshape(-1, length)
        new = counts[found] == 0
        vectors[found[new]] = parts[new]
        if not np.array_equal(vectors[found], parts):  # two of them have one mark, which is next to impossible
            return None
        counts += np.bincount(found, minlength=known.size)
        codes[first : first + len(block)] = found.reshape(len(block), -1)
    order = np.argsort(-counts, kind="stable")
    number = np.empty(known.size, np.uint16)
    number[order] = np.arange(known.size)
    return number[codes], vectors[order].view(rows.dtype)


def _blocks(rows: Array) -> Iterator[tuple[int, Array]]:
    """Some rows at once, contiguous, each time with the number of the first."""
    step = max(1, PIECE // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        yield first, np.ascontiguousarray(rows[first : first + step])


def _marks(rows: Array, length: int) -> _Marks:
    """A number of 64 bits for each sub-vector, equal for equal bits and different but for bad luck, [n]."""
    parts = bits_of(rows).reshape(-1, length)
    marks = np.zeros(len(parts), np.uint64)
    for entry in range(length):
        marks ^= parts[:, entry]
        marks *= _FACTOR
        marks ^= marks >> _SHIFT
    return marks
