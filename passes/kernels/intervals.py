"""The best division of ascending values into intervals, by dynamic programming, vectorised over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Float64Array

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Points:
    """Distinct values in ascending order, and the mass of each; both [points]."""

    value: Float64Array
    mass: Float64Array


def best_cuts(points: Sequence[Points], edges: Sequence[Ints], clusters: int) -> list[Ints]:
    """For each row the points where the best clusters of whole groups begin, and the end.

    The error of a cluster is a constant less moment² / mass, so the sum of these is made most. best[k][j], of the
    first j groups in k clusters, is max over i <= j of best[k - 1][i] + gain(i, j).
    """
    size = 1 << max(edge.size - 2 for edge in edges).bit_length()
    mass, moment = np.empty((2, len(points), size + 1))
    for row, (each, edge) in enumerate(zip(points, edges, strict=True)):
        held = np.add.reduceat(each.mass, edge[:-1])
        moved = np.add.reduceat(each.mass * each.value, edge[:-1])
        # any origin and unit give the same clusters; these keep the numbers small
        moved = (moved - held * (moved.sum() / held.sum())) / max(each.value[-1] - each.value[0], 1e-300)
        padding = (0, size + 1 - edge.size)
        mass[row] = np.pad(running(held), padding, mode="edge")
        moment[row] = np.pad(running(moved), padding, mode="edge")
    best = np.divide(moment**2, mass, out=np.zeros_like(mass), where=mass > 0)
    origins = []
    for _ in range(clusters - 1):
        best, origin = _layer(best, mass, moment)
        origins.append(origin.astype(np.int32))
    # groups beyond a row's own are padding without mass
    cuts = _trace_back(origins, len(edges), size)
    return [edge[np.minimum(cut, edge.size - 1)] for edge, cut in zip(edges, cuts, strict=True)]


def _layer(best: Float64Array, mass: Float64Array, moment: Float64Array) -> tuple[Float64Array, Ints]:
    """One more cluster: the new best [rows, groups + 1], and the group at which its last cluster begins.

    That beginning never moves left as j moves right, so between two known ones only their span is searched:
    all middles of a level at once, O(groups · log groups) in all.
    """
    rows, last = best.shape[0], best.shape[1] - 1
    value, origin = np.zeros_like(best), np.zeros(best.shape, np.int64)

    def search(ends: Ints, low: Ints, high: Ints) -> None:
        value[:, ends], origin[:, ends] = _most(best, mass, moment, ends, low, high)

    search(np.array([last]), np.zeros((rows, 1), np.int64), np.full((rows, 1), last))
    step = last
    while step > 1:
        ends = np.arange(step // 2, last, step)
        search(ends, origin[:, ends - step // 2], np.minimum(origin[:, ends + step // 2], ends))
        step //= 2
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


def running(terms: Float64Array) -> Float64Array:
    """Sums of the first 0, 1, 2, ... terms."""
    sums = np.zeros(terms.size + 1)
    np.cumsum(terms, out=sums[1:])
    return sums
