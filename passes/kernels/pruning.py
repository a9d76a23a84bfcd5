"""Magnitude pruning (Han et al., 2015): which weights go, and zeroing them without touching the original.

Ties are broken by position: of equally small weights the first in C order go first. A weight that is zero already
counts towards the sparsity and keeps its bits; one that is not a number counts as the largest and is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Float64Array, Mask, magnitudes, pieces

_SMALL = 16
"""Scores of a group up to which comparing each pair of them is quicker than sorting."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """An exact order statistic of magnitudes.

    Attributes:
        value: weights of smaller magnitude go.
        ties: so many weights of exactly this magnitude go as well.
        count: weights that are zero afterwards, those zero before included.
    """

    value: float
    ties: int
    count: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned copy of a weight.

    Attributes:
        weight: shape and dtype of the original.
        zeros: its zeros.
        already: how many of them the original had.
        tied: how many of `ties` were spent on it.
    """

    weight: Array
    zeros: int
    already: int
    tied: int = 0


def magnitude_threshold(arrays: Iterable[Array], sparsity: float) -> Threshold:
    """The magnitude below which the fraction `sparsity` of all weights together lies.

    Exact, in the memory of one piece: a radix selection on the bits of the magnitudes, which order like the
    magnitudes themselves. Reads the weights twice (float64 ones up to four times).

    Args:
        arrays: weights of any shape and float dtype; iterated more than once, so not a generator.
        sparsity: in [0, 1].

    Raises:
        ValueError: `sparsity` outside [0, 1], a one-shot iterator, or too few weights that are numbers.
    """
    if iter(arrays) is arrays:
        raise ValueError("the weights are read more than once: pass a list or an object that can be iterated again")
    count = zeros_for(sparsity, sum(array.size for array in arrays))
    if count == 0:
        return Threshold(0.0, 0, 0)
    value, below = _select(arrays, count)
    if math.isnan(value):
        raise ValueError(f"cannot zero {count} weights: fewer than that are numbers")
    return Threshold(value, count - below, count)


def zeros_for(sparsity: float, size: int) -> int:
    """The number of zeros that `sparsity` asks of `size` weights, rounded to the nearest.

    Raises:
        ValueError: `sparsity` outside [0, 1].
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must lie in [0, 1], got {sparsity}")
    return round(sparsity * size)


def zero_below(weight: Array, threshold: float, *, ties: int = 0) -> Pruned:
    """Zero what is smaller in magnitude than `threshold`, and the first `ties` of exactly its magnitude.

    Peak memory is the result and one piece.

    Args:
        weight: any shape and float dtype; not written to.
        threshold: not negative.
        ties: at most so many weights of exactly this magnitude go.

    Raises:
        ValueError: `threshold` is negative or not a number.
    """
    pruned = np.empty(weight.shape, weight.dtype)
    already = gone = tied = 0
    for piece, target in zip(zero_pieces(weight, threshold, ties=ties), pieces(pruned), strict=True):
        target[...] = piece.pruned
        already, gone, tied = already + piece.already, gone + piece.gone, tied + piece.tied
    return Pruned(pruned, already + gone, already, tied)


@dataclass(frozen=True, slots=True)
class PrunedPiece:
    """A flat piece of a weight, before and after.

    Attributes:
        source: as it was.
        pruned: as it is now.
        already: zeros before.
        gone: zeros that are new.
        tied: how many of `ties` were spent on it.
    """

    source: Array
    pruned: Array
    already: int
    gone: int
    tied: int


def zero_pieces(weight: Array, threshold: float, *, ties: int = 0) -> Iterator[PrunedPiece]:
    """Do what `zero_below` does, piece by piece, in C order; nothing but a piece is in memory.

    Raises:
        ValueError: `threshold` is negative or not a number.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be a number of at least 0, got {threshold}")
    left = ties
    for source in pieces(weight):
        size = magnitudes(source)
        gone = size < threshold
        tied = np.flatnonzero(size == threshold)[:left] if left and threshold else np.zeros(0, np.intp)
        gone[tied] = True
        left -= tied.size
        zero = size == 0
        gone &= ~zero  # the sign of -0.0 stays
        pruned = source.copy()
        pruned[gone] = 0
        yield PrunedPiece(source, pruned, int(np.count_nonzero(zero)), int(np.count_nonzero(gone)), int(tied.size))


def threshold_mask(scores: Array, threshold: float, *, ties: int = 0) -> Mask:
    """True for scores of at least `threshold` in magnitude, without the first `ties` that equal it."""
    kept = np.empty(scores.shape, np.bool_)
    left = ties
    for source, target in zip(pieces(scores), pieces(kept), strict=True):
        size = magnitudes(source)
        target[...] = ~(size < threshold)
        tied = np.flatnonzero(size == threshold)[:left]
        target[tied] = False
        left -= tied.size
    return kept


def nm_mask(scores: Array, *, keep: int, group: int, axis: int) -> Mask:
    """True for the `keep` largest of every `group` successive scores along `axis`.

    A remainder of fewer than `group` scores keeps its `keep` largest too, all of them if it has no more, so no
    group ever holds more than `keep`.

    Args:
        scores: any shape and float dtype.
        keep: N of N:M, from 1 to `group`.
        group: M.
        axis: the one the groups lie along, usually the reduction axis.

    Raises:
        ValueError: `keep` or `group` out of range, or no such axis.
    """
    if not 1 <= keep <= group:
        raise ValueError(f"keep must lie in 1..{group}, got {keep}")
    if not -scores.ndim <= axis < scores.ndim:
        raise ValueError(f"axis {axis} does not exist in shape {scores.shape}")
    axis %= scores.ndim
    rows = (math.prod(scores.shape[:axis]), scores.shape[axis], math.prod(scores.shape[axis + 1 :]))
    view, kept = scores.reshape(rows), np.empty(rows, np.bool_)
    for tile in _tiles(rows, group):
        kept[tile] = _largest(magnitudes(view[tile]), keep, group)
    return kept.reshape(scores.shape)


def largest_mask(scores: Array, sparsity: float) -> Mask:
    """True for all but the fraction `sparsity` of smallest magnitude, of equal ones the first in C order.

    Raises:
        ValueError: `sparsity` outside [0, 1], or too few scores that are numbers.
    """
    threshold = magnitude_threshold([scores], sparsity)
    return threshold_mask(scores, threshold.value, ties=threshold.ties)


def apply_mask(weight: Array, kept: Mask) -> Pruned:
    """Zero what `kept` does not mark; peak memory is the result and one piece.

    Raises:
        ValueError: the shapes differ.
    """
    if weight.shape != kept.shape:
        raise ValueError(f"a mask of shape {kept.shape} does not fit a weight of shape {weight.shape}")
    pruned = np.empty(weight.shape, weight.dtype)
    already = gone_count = 0
    for source, target, keep in zip(pieces(weight), pieces(pruned), pieces(kept), strict=True):
        zero = source == 0
        gone = ~(keep | zero)
        target[...] = source
        target[gone] = 0
        already += int(np.count_nonzero(zero))
        gone_count += int(np.count_nonzero(gone))
    return Pruned(pruned, already + gone_count, already)


_union: Any = np.bitwise_or.reduce  # whose plain form has no type in numpy 2.5


def _select(arrays: Iterable[Array], count: int) -> tuple[float, int]:
    """The `count`-th smallest magnitude (from 1) and how many are smaller."""
    prefix, below, top = 0, 0, 63
    # float32 and narrower hold nothing below bit 29 of a float64, so two rounds of 17 bits settle them
    for shift in (46, 29, 12, 0):
        bins = 1 << (top - shift)
        histogram, used = np.zeros(bins, np.int64), 0
        for array in arrays:
            for piece in pieces(array):
                key = magnitudes(piece).view(np.int64)
                inside = key if top == 63 else key[key >> top == prefix]
                histogram += np.bincount((inside >> shift) - prefix * bins, minlength=bins)
                used |= int(_union(inside))
        reached = np.cumsum(histogram)
        chosen = int(np.searchsorted(reached, count - below))
        below += int(reached[chosen] - histogram[chosen])
        prefix, top = prefix * bins + chosen, shift
        if not used & ((1 << shift) - 1):
            break
    return float(np.int64(prefix << top).view(np.float64)), below


def _tiles(shape: tuple[int, int, int], group: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the first two axes holding about one piece each, cut between groups."""
    outer, length, inner = shape
    along = max(1, PIECE // max(1, inner * group)) * group
    rows = max(1, PIECE // max(1, inner * min(length, along)))
    for row in range(0, outer, rows):
        for start in range(0, length, along):
            yield slice(row, row + rows), slice(start, start + along)


def _largest(scores: Float64Array, keep: int, group: int) -> Mask:
    """True for the `keep` largest of each group along the middle axis; padding, smaller than all, goes first."""
    rows, length, inner = scores.shape
    groups = -(-length // group)
    padded = np.full((rows, groups * group, inner), -1.0)
    padded[:, :length] = scores
    split = padded.reshape(rows, groups, group, inner)
    if group <= _SMALL and not np.isnan(padded.max(initial=0)):
        kept = _outranked(np.ascontiguousarray(split.transpose(2, 0, 1, 3))).transpose(1, 2, 0, 3) < keep
    else:
        order = np.argsort(split, axis=2, kind="stable")
        kept = np.ones(split.shape, np.bool_)
        np.put_along_axis(kept, order[:, :, : group - keep], False, axis=2)
    return kept.reshape(padded.shape)[:, :length]


def _outranked(members: Float64Array) -> NDArray[np.int8]:
    """By how many of its group each score is outranked, [group, …], where of equal ones the last is the largest."""
    above = np.zeros(members.shape, np.int8)
    for second in range(1, len(members)):
        for first in range(second):
            larger = members[first] > members[second]
            above[second] += larger
            above[first] += ~larger
    return above
