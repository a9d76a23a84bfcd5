"""The best division of ascending values into intervals, by dynamic programming, vectorised over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Float64Array

Ints: TypeAlias = NDArray[np.int64]


_WIDE = 2048  # entries of a table from which work counts and no longer the number of calls


def best_cuts(held: Sequence[Float64Array], moved: Sequence[Float64Array], clusters: int) -> list[Ints]:
    """For each row the groups with which the best clusters of whole groups begin, and their number.

    The error of a cluster is a constant less moment² / mass, so the sum of these is made most. best[k][j], of the
    first j groups in k clusters, is max over i <= j of best[k - 1][i] + gain(i, j).

    Args:
        held: mass of each group, in ascending order of values, [groups] for each row.
        moved: moment of each, Σ mass·value, [groups] for each row.
        clusters: at least 1.

    Returns:
        [clusters + 1] for each row.
    """
    size = 1 << max(row.size - 1 for row in held).bit_length()
    mass, moment = np.empty((2, len(held), size + 1))
    for row, (each, shift) in enumerate(zip(held, moved, strict=True)):
        # any origin and unit give the same clusters; these keep the numbers small
        centred = shift - each * (shift.sum() / each.sum())
        centred /= max(float(np.abs(centred).max()), 1e-300)
        padding = (0, size - each.size)
        mass[row] = np.pad(running(each), padding, mode="edge")
        moment[row] = np.pad(running(centred), padding, mode="edge")
    best = np.divide(moment**2, mass, out=np.zeros_like(mass), where=mass > 0)
    origins = []
    for left in range(clusters - 1, 0, -1):
        best, origin = _layer(best, mass, moment, last=left == 1)
        origins.append(origin.astype(np.int32))
    # groups beyond a row's own are padding without mass
    cuts = _trace_back(origins, len(held), size)
    return [np.minimum(cut, row.size) for row, cut in zip(held, cuts, strict=True)]


def best_of(mass: Float64Array, moment: Float64Array) -> tuple[Ints, float]:
    """Which of a few places for each cut are best together.

    Args:
        mass: before each place, [cuts, places]; the first cut and the last are the ends of the line.
        moment: before each, about any origin near the mean.

    Returns:
        The number of the place of each cut, [cuts], where clusters may be empty; and Σ moment² / mass, made most.
    """
    held = mass[1:, None, :] - mass[:-1, :, None]
    gain = np.square(moment[1:, None, :] - moment[:-1, :, None])
    np.divide(gain, held, out=gain, where=held > 0)
    gain[held == 0] = 0
    gain[held < 0] = -np.inf
    best, origins, column = np.zeros(mass.shape[1]), [], np.arange(mass.shape[1])
    for layer in gain:
        tries = best[:, None] + layer
        origin = tries.argmax(axis=0)
        best = tries[origin, column]
        origins.append(origin)
    place, most = int(best.argmax()), float(best.max())
    chosen = [place]
    for origin in reversed(origins):
        place = int(origin[place])
        chosen.append(place)
    return np.array(chosen[::-1]), most


def _layer(best: Float64Array, mass: Float64Array, moment: Float64Array, *, last: bool) -> tuple[Float64Array, Ints]:
    """One more cluster: the new best [rows, groups + 1], and the group at which its last cluster begins.

    That beginning never moves left as j moves right, so between two known ones only their span is searched:
    all of a level at once, O(groups · log groups) in all. Fewer levels are more work in fewer calls.

    Args:
        best: with one cluster less.
        mass: before each group.
        moment: before each group.
        last: only the best of all groups is of interest.
    """
    rows, end = best.shape[0], best.shape[1] - 1
    value, origin = np.zeros_like(best), np.zeros(best.shape, np.int64)

    def search(ends: Ints, low: Ints, high: Ints) -> None:
        value[:, ends], origin[:, ends] = _most(best, mass, moment, ends, low, high)

    search(np.array([end]), np.zeros((rows, 1), np.int64), np.full((rows, 1), end))
    step, ways = end, 8 if best.size < _WIDE else 2
    while step > 1 and not last:
        finer = max(1, step // ways)
        ends = np.arange(finer, end, finer)
        ends = ends[ends % step != 0]
        before = ends // step * step
        search(ends, origin[:, before], np.minimum(origin[:, before + step], ends))
        step = finer
    return value, origin


def _most(
    best: Float64Array, mass: Float64Array, moment: Float64Array, ends: Ints, low: Ints, high: Ints
) -> tuple[Float64Array, Ints]:
    """For each row and end j the largest best[i] + gain(i, j) over low <= i <= high, and its first i."""
    lengths = (high - low + 1).reshape(-1)
    starts = np.cumsum(lengths) - lengths
    row = np.arange(best.shape[0])[:, None] * best.shape[1]
    tries = np.arange(lengths.sum()) + np.repeat((low + row).reshape(-1) - starts, lengths)
    to = (ends + row).reshape(-1)
    held = np.repeat(mass.reshape(-1)[to], lengths) - mass.reshape(-1)[tries]
    moved = np.repeat(moment.reshape(-1)[to], lengths) - moment.reshape(-1)[tries]
    gain = np.divide(moved * moved, held, out=np.zeros_like(held), where=held > 0)
    gain += best.reshape(-1)[tries]
    top = np.maximum.reduceat(gain, starts)
    hits = np.flatnonzero(gain == np.repeat(top, lengths))
    first = hits[np.searchsorted(hits, starts)]
    return top.reshape(low.shape), (tries[first] - row.repeat(ends.size)).reshape(low.shape)


def _trace_back(origins: Sequence[NDArray[np.int32]], rows: int, last: int) -> Ints:
    """The group boundaries of the best clusters, [rows, clusters + 1]."""
    end = np.full(rows, last)
    cuts = [end]
    for origin in reversed(origins):
        end = origin[np.arange(rows), end].astype(np.int64)
        cuts.append(end)
    return np.stack([*cuts, np.zeros(rows, np.int64)], axis=1)[:, ::-1]


def running(terms: NDArray[np.floating]) -> Float64Array:
    """Sums of the first 0, 1, 2, ... terms."""
    sums = np.zeros(terms.size + 1)
    np.cumsum(terms, dtype=np.float64, out=sums[1:])
    return sums
