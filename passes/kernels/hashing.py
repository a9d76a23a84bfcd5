"""Which weights share a value, told by a hash of their place: nothing but the seed has to be stored to know.

Chen et al., "Compressing Neural Networks with the Hashing Trick" (2015). The hash is xxHash32 of the eight bytes row,
column (each as uint32, little-endian).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Float64Array

Numbers = NDArray[np.uint32]

_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
_WORD = 1 << 32
_BYTES = 8


def hashes(rows: Numbers, columns: Numbers, *, seed: int = 0) -> Numbers:
    """The hash of each row and column, broadcast against each other.

    Args:
        rows: uint32.
        columns: uint32.
        seed: 0 to 2^32 − 1.
    """
    start = np.uint32((seed + _FIFTH + _BYTES) % _WORD)
    mixed = _taken_in(_taken_in(np.asarray(start), rows), columns)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(_SECOND)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(_THIRD)
    found: Numbers = mixed ^ (mixed >> np.uint32(16))
    return found


def bucket_means(rows: Array, buckets: int, *, seed: int = 0, weights: Array | None = None) -> Float64Array:
    """The value of each bucket for which Σ weight·(w − value)² of what falls into it is least: the mean.

    Args:
        rows: the weights, [rows, columns].
        buckets: how many there are.
        seed: of the hash.
        weights: importance of each weight, same shape, not negative; None counts all alike.

    Returns:
        [buckets]; zero where nothing of importance falls.

    Raises:
        ValueError: no buckets, shapes that do not fit, or values that are not finite.
    """
    if buckets < 1 or rows.ndim != 2:
        raise ValueError(f"{buckets} buckets for weights {list(rows.shape)}: take 1 or more for a matrix")
    if weights is not None and weights.shape != rows.shape:
        raise ValueError(f"importance {list(weights.shape)} does not belong to weights {list(rows.shape)}")
    mass, moment = np.zeros(buckets), np.zeros(buckets)
    for block, numbers in _numbered(rows.shape, buckets, seed):
        wide = rows[block].astype(np.float64).reshape(-1)
        heavy = np.ones(wide.size) if weights is None else weights[block].astype(np.float64).reshape(-1)
        if not (np.isfinite(wide).all() and np.isfinite(heavy).all()):
            raise ValueError("cannot share values that are not finite")
        mass += np.bincount(numbers.reshape(-1), heavy, minlength=buckets)
        moment += np.bincount(numbers.reshape(-1), heavy * wide, minlength=buckets)
    return np.divide(moment, mass, out=np.zeros(buckets), where=mass > 0)


def spread(values: Array, shape: tuple[int, int], *, seed: int = 0) -> NDArray[Any]:
    """A matrix in which each weight has the value of its bucket.

    Args:
        values: of the buckets, any dtype.
        shape: of the matrix.
        seed: of the hash.
    """
    result = np.empty(shape, values.dtype)
    for block, numbers in _numbered(shape, len(values), seed):
        result[block] = values[numbers]
    return result


def _numbered(shape: tuple[int, ...], buckets: int, seed: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Some rows at once, with the bucket of each of their weights."""
    total, width = shape
    columns = np.arange(width, dtype=np.uint32)
    step = max(1, PIECE // max(1, width))
    for first in range(0, total, step):
        rows = np.arange(first, min(first + step, total), dtype=np.uint32)[:, np.newaxis]
        wide = hashes(rows, columns, seed=seed).astype(np.uint64) * np.uint64(buckets)
        yield slice(first, first + step), (wide >> np.uint64(32)).astype(np.int64)


def _taken_in(state: Numbers, word: Numbers) -> Numbers:
    """The hash after four more bytes."""
    mixed = np.atleast_1d(state + word * np.uint32(_THIRD))
    turned: Numbers = ((mixed << np.uint32(17)) | (mixed >> np.uint32(15))) * np.uint32(_FOURTH)
    return turned
