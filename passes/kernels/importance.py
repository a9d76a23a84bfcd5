"""How much single units of a layer matter: channels, neurons, heads. Larger is more; what matters least goes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array

Norm: TypeAlias = Literal["l1", "l2"]

_PIECE = 1 << 24
"""Products held at once."""


def norms(rows: Array, *, norm: Norm = "l2") -> Float64Array:
    """The norm of what belongs to each unit (Li et al., 2017, "Pruning Filters for Efficient ConvNets").

    Args:
        rows: [units, n], of any float dtype.
        norm: `l1` for Σ|x|, `l2` for √Σx².

    Returns:
        float64 [units].
    """
    wide = np.asarray(rows, np.float64)
    if norm == "l1":
        return np.asarray(np.abs(wide).sum(axis=1), np.float64)
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", wide, wide)), np.float64)


def median_distances(rows: Array) -> Float64Array:
    """How far each unit lies from all others: Σ_j ‖x_i − x_j‖ (He et al., 2019, "Filter Pruning via Geometric Median").

    The unit nearest to the geometric median has the smallest; the others can stand in for it.

    Args:
        rows: [units, n], of any float dtype.

    Returns:
        float64 [units].
    """
    wide = np.asarray(rows, np.float64)
    centred = wide - wide.mean(axis=0)  # distances stay, rounding gets smaller
    square = np.einsum("ij,ij->i", centred, centred)
    found = np.zeros(len(wide))
    step = max(1, _PIECE // max(1, len(wide)))
    for start in range(0, len(wide), step):
        part = slice(start, start + step)
        squares = square[part, np.newaxis] + square - 2 * centred[part] @ centred.T
        squares[np.arange(len(squares)), np.arange(start, start + len(squares))] = 0.0
        found[part] = np.sqrt(np.maximum(squares, 0.0)).sum(axis=1)
    return found


def energies(rows: Array, columns: Array) -> Float64Array:
    """The root mean square of what a layer reads of each unit.

    Args:
        rows: a sample of what it reads, [n, k].
        columns: of the rows, that belong to each unit, [units, per unit].

    Returns:
        float64 [units]; zeros where there are no rows.
    """
    wide = np.asarray(rows, np.float64)
    means = np.einsum("ij,ij->j", wide, wide) / max(1, len(wide))
    return np.asarray(np.sqrt(means[columns].mean(axis=1)), np.float64)


def presences(rows: Array, columns: Array) -> Float64Array:
    """The share of what a layer reads of each unit that is not zero: 1 − APoZ (Hu et al., 2016, "Network Trimming").

    Args:
        rows: a sample of what it reads, [n, k].
        columns: of the rows, that belong to each unit, [units, per unit].

    Returns:
        float64 [units], 0 to 1; zeros where there are no rows.
    """
    seen = np.count_nonzero(rows, axis=0) / max(1, len(rows))
    return np.asarray(seen[columns].mean(axis=1), np.float64)


def joint(scores: Sequence[Float64Array]) -> Float64Array:
    """One importance for units that are seen by several layers: the mean of each layer's, divided by its own mean.

    So no layer counts more than another because of its scale, and groups can be compared: the mean is 1.

    Args:
        scores: of each layer, [units], none negative.

    Returns:
        float64 [units].

    Raises:
        ValueError: no scores, or some that are negative or no numbers.
    """
    if not scores:
        raise ValueError("there are no scores to join")
    total = np.zeros(len(scores[0]))
    for each in scores:
        if not np.isfinite(each).all() or (each < 0).any():
            raise ValueError("scores must be finite and not negative")
        mean = float(each.mean())
        total += each / mean if mean > 0 else np.ones_like(each)
    return total / len(scores)
