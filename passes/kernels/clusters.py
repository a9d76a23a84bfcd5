"""Clusters of values on a line: intervals between cuts, and where the cuts belong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Float64Array, ascending
from onnxpress.passes.kernels.intervals import Ints, best_of
from onnxpress.passes.kernels.nearest import borders_of, floor_to
from onnxpress.passes.kernels.points import Floats, Points, Sums

_ANCHOR = 1e6  # mass that ties a cluster to zero, in masses of all other values
_DIVIDED = 4  # rounds in which groups are divided
_FINE, _PARTS = 4096, 16
_FIXED = 8  # rounds that settle how wide groups are
_NEAR = 4  # places tried on each side of a cut
_SETTLED = 1 + 1e-13
_ROUNDS = 300  # of Lloyd or of smallest steps; a few do


@dataclass(frozen=True, slots=True)
class Line:
    """Points with running sums.

    Attributes:
        points: ascending.
        mass: running; None where each counts one.
        moment: running.
        zero: the point that stays zero; None where none does.
    """

    points: Points
    mass: Sums | None
    moment: Sums
    zero: int | None

    @classmethod
    def of(cls, points: Points, *, keep_zero: bool) -> Line:
        """Sum up the points."""
        mass = None if points.mass is None else Sums.of(points.mass)
        return cls(points, mass, Sums.of(points.moment), zero_of(points) if keep_zero else None)

    def anchored(self, held: Float64Array, edges: Ints) -> Float64Array:
        """Masses of groups with so much more at the zero that stays that the centroid of its cluster lies there."""
        if self.zero is None:
            return held
        result = held.copy()
        result[int(np.searchsorted(edges, self.zero, side="right")) - 1] += _ANCHOR * held.sum()
        return result

    def masses(self, places: Ints) -> Float64Array:
        """The mass before each place."""
        return places.astype(np.float64) if self.mass is None else self.mass.at(places)

    def cuts_between(self, centroids: Float64Array) -> Ints:
        """Where the points begin that are nearest to each of ascending centroids, and the end."""
        value = self.points.value
        inner = np.searchsorted(value, floor_to(value.dtype.type, borders_of(centroids)), side="right")
        return ascending(np.concatenate([[0], inner, [value.size]]))

    def centroids(self, cuts: Ints) -> Float64Array:
        """Means of the points between cuts; zero where the zero lies that stays."""
        cuts, value = ascending(cuts), self.points.value
        held, moved = np.diff(self.masses(cuts)), np.diff(self.moment.at(cuts))
        # where the sums swallowed a trace of mass, a point in the middle stands for the mean
        means: Float64Array = value[(cuts[:-1] + cuts[1:]) // 2].astype(np.float64)
        np.divide(moved, held, out=means, where=held > 0)
        if self.zero is not None:
            means[int(np.searchsorted(cuts, self.zero, side="right")) - 1] = 0
        return means


def zero_of(points: Points) -> int | None:
    """The first point that is zero; None where there is none."""
    place = int(np.searchsorted(points.value, 0.0))
    return place if place < points.value.size and points.value[place] == 0 else None


def groups_of(points: Points, count: int) -> Ints:
    """The first points of groups of neighbours, and the end: `count` groups at most, equal points never parted.

    Groups are fine where there is much to lose: Σ (mass · width²)^⅓ over very small groups grows alike in each, which
    is best where the density is smooth (Panter and Dite, 1951). What alone has more than its part is divided further;
    if it cannot be, it is a group, and takes no more than one.
    """
    most = max(1, count - 1)  # that many full ones and the rest
    size = points.value.size
    if points.mass is not None and size <= 2 * _FINE:
        edges = np.arange(size + 1)
    else:
        edges = _divided(points.value, np.array([0]), np.array([size]), _FINE)
    for left in reversed(range(_DIVIDED)):
        ends = np.append(points.value[edges[:-1]], points.value[-1]).astype(np.float64)
        spread = np.cbrt(points.held(edges) * np.square(np.diff(ends)))
        step = float(spread.sum()) / most
        for _ in range(_FIXED):
            step = float(np.minimum(spread, step).sum()) / most
        wide = (spread >= step) & (np.diff(edges) > 1)
        if not (left and wide.any()):
            break
        edges = ascending(np.concatenate([edges, _divided(points.value, edges[:-1][wide], edges[1:][wide], _PARTS)]))
    number = np.floor(np.cumsum(np.minimum(spread, step)) / step) if step > 0 else np.arange(spread.size)
    full = np.flatnonzero((np.diff(number, prepend=0) > 0) | (spread >= step)) + 1
    return ascending(np.concatenate([[0], edges[full], edges[-1:]]))


def _divided(value: Floats, starts: Ints, ends: Ints, parts: int) -> Ints:
    """Edges of parts of the same number of points, and of the same width, of each stretch of points."""
    share = np.linspace(0, 1, parts + 1)[1:-1, None]
    by_count = value[starts + ((ends - starts) * share).astype(np.int64)]
    by_value = value[starts] * (1 - share) + value[ends - 1] * share
    inner = np.concatenate([by_count.reshape(-1), by_value.reshape(-1).astype(value.dtype)])
    return ascending(np.concatenate([starts, np.searchsorted(value, inner), ends]))


def refined(line: Line, cuts: Ints, reach: Ints) -> Ints:
    """Cuts moved together to the best of nine places around each, in smaller and smaller steps, until they rest.

    Args:
        line: of points.
        cuts: ascending, from zero to the number of points, [cuts].
        reach: how many points the first places lie apart at most, [cuts].
    """
    size, value = line.points.value.size, line.points.value
    steps = np.maximum(1, -(-reach // _NEAR))
    whole = np.array([size], np.int64)
    # any origin gives the same clusters; one in the middle keeps the numbers small
    middle = 0.0 if line.zero is not None else float(line.moment.at(whole)[0] / line.masses(whole)[0])
    offsets = np.arange(-_NEAR, _NEAR + 1)  # in steps
    before = -1.0
    for _ in range(_ROUNDS):
        places: Ints = np.clip(cuts[:, None] + steps[:, None] * offsets, 0, size)
        places[0], places[-1] = 0, size
        if line.mass is None:  # equal values are not parted
            inside = places < size
            places[inside] = np.searchsorted(value, value[places[inside]])
        mass: Float64Array = line.masses(places)
        moment: Float64Array = line.moment.at(places) - middle * mass
        if line.zero is not None:
            mass = mass + _ANCHOR * float(mass[-1, 0]) * (places > line.zero)
        chosen, most = best_of(mass, moment)
        moved = places[np.arange(cuts.size), chosen]
        # who went as far as it could may have farther to go
        far = (moved != cuts) & (np.abs(offsets[chosen]) == _NEAR)
        cuts = moved
        if steps.max() == 1 and most <= before * _SETTLED:  # equally good places would be taken by turns
            break
        before, steps = most, np.where(far, 2 * steps, -(-steps // 2))
    return cuts


def lloyd(line: Line, cuts: Ints) -> Ints:
    """Cuts after moving each to the middle of its neighbours' means by turns, until they rest; unused ones go."""
    for _ in range(_ROUNDS):
        moved = line.cuts_between(line.centroids(cuts))
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    return cuts
