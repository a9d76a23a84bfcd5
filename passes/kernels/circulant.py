"""Block-circulant matrices: each block [b, b] is told by its first column, so b weights become one.

Cheng et al., "An Exploration of Parameter Redundancy in Deep Networks with Circulant Projections" (2015): whole
matrices; Ding et al., "CirCNN" (2017): blocks. Entry (s, t) of block (i, j) is columns[i, j, (s − t) mod b].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array

_JITTER = 1e-10
"""Part of the mean diagonal that keeps systems solvable where inputs are always zero."""


def dense(columns: Array, shape: tuple[int, int]) -> Array:
    """The matrix of first columns.

    Args:
        columns: of the blocks, [p, q, b].
        shape: of the matrix, at most [p·b, q·b]: what is beyond is cut off.
    """
    p, q, block = columns.shape
    whole = columns[:, :, _places(block)].transpose(0, 2, 1, 3).reshape(p * block, q * block)
    return np.ascontiguousarray(whole[: shape[0], : shape[1]])


def fit(target: Array, block: int, *, metric: Array | None = None) -> Float64Array:
    """The block-circulant W for which tr((W − T)·H·(W − T)ᵀ) is least: exact.

    All rows of a block of rows have the same parameters q·b in another order, so H is summed over these orders, and
    each block of rows is one right side of one system. Without a metric that is a mean along each wrapped diagonal.

    Args:
        target: T, [out, in].
        block: b; the last block of an axis may be cut.
        metric: H, [in, in], symmetric and not negative; None for the identity.

    Returns:
        First columns [p, q, b] of blocks, p·b ≥ out and q·b ≥ in.

    Raises:
        ValueError: shapes that do not belong together, or values that are not finite.
    """
    out, channels = target.shape
    if block < 1 or (metric is not None and metric.shape != (channels, channels)):
        raise ValueError(f"blocks of {block} and a metric do not belong to a matrix {list(target.shape)}")
    wide = _filled(target.astype(np.float64), block, block)
    if not np.isfinite(wide).all() or (metric is not None and not np.isfinite(metric).all()):
        raise ValueError("holds values that are not finite")
    last = out % block
    if metric is None:
        return _means(wide, (out, channels), block)
    square = _filled(metric.astype(np.float64), block, block)
    sides = _wrapped_sums(wide @ square, block)
    found = np.empty_like(sides)
    whole = out // block
    if whole:
        found[:whole] = _solved(square, sides[:whole], block, block)
    if last:
        found[whole:] = _solved(square, sides[whole:], block, last)
    return found


def _places(block: int) -> NDArray[np.int64]:
    """Which entry of its first column stands at each place of a block."""
    line = np.arange(block)
    return (line[:, np.newaxis] - line) % block


def _filled(array: Float64Array, rows: int, columns: int) -> Float64Array:
    """Zeros behind it, up to whole blocks."""
    return np.pad(array, [(0, -array.shape[0] % rows), (0, -array.shape[1] % columns)])


def _wrapped_sums(wide: Float64Array, block: int) -> Float64Array:
    """Sums along the wrapped diagonals of each block, [p, q, b]."""
    p, q = wide.shape[0] // block, wide.shape[1] // block
    blocks = wide.reshape(p, block, q, block).transpose(0, 2, 1, 3)
    line = np.arange(block)
    sums = np.zeros((p, q, block))
    for row in range(block):  # entry d of the sums takes column (row − d) of each row
        sums += blocks[:, :, row, (row - line) % block]
    return sums


def _means(wide: Float64Array, shape: tuple[int, int], block: int) -> Float64Array:
    there = _filled(np.ones(shape), block, block)
    counts = _wrapped_sums(there, block)
    return _wrapped_sums(wide, block) / np.maximum(counts, 1)


def _solved(square: Float64Array, sides: Float64Array, block: int, rows: int) -> Float64Array:
    """First columns of blocks of so many rows."""
    import scipy.linalg

    size = len(square)
    system = _summed(square, block, rows)
    system[np.diag_indices(size)] += _JITTER * max(float(np.trace(system)) / size, np.finfo(np.float64).tiny)
    factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True)
    found: Float64Array = scipy.linalg.cho_solve(factor, sides.reshape(-1, size).T).T.reshape(sides.shape)
    return found


def _summed(square: Float64Array, block: int, rows: int) -> Float64Array:
    """Σ P_sᵀ·H·P_s over the rows s of a block, which read parameter d of a block at column (s − d) mod b."""
    q, line = len(square) // block, np.arange(block)
    parts = square.reshape(q, block, q, block)
    found = np.empty_like(parts)
    for step in range(block):  # pairs of columns t and t − step belong to pairs of parameters d and d + step
        pairs = parts[:, line, :, (line - step) % block]  # [t, q, q]
        runs = np.concatenate([np.zeros_like(pairs[:1]), np.cumsum(np.concatenate([pairs, pairs]), axis=0)])
        begin = -line % block  # parameter d meets columns −d, 1 − d, …, rows − 1 − d
        found[:, line, :, (line + step) % block] = runs[begin + rows] - runs[begin]
    return found.reshape(square.shape)
