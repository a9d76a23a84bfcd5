"""Units of a layer that do nearly the same are merged: one goes, its twin takes over what it gave to the next layer.

With w_j what a unit is computed from (its row of the incoming weights, its bias) and a_j what it gives to the next
layer (its column there), letting unit i stand for unit j, times c, changes what the next layer computes by about

    saliency(j -> i) = ‖a_j‖² · ‖w_j − c·w_i‖²        a_i becomes a_i + c·a_j

for inputs without correlation. c = 1 is the paper's; c > 0 is free where everything between the weights is positively
homogeneous, relu(c·x) = c·relu(x), and any c where w holds observed values.

Srinivas & Babu, 2015, "Data-free Parameter Pruning for Deep Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.pairs import Pairs
from onnxpress.passes.kernels.products import Rows

_AGAIN = 32
"""Units whose twins are sought anew at a time, after their own went."""


@dataclass(frozen=True, slots=True)
class Merge:
    """One unit that goes.

    Attributes:
        removed: its number.
        twin: the unit that stands for it.
        factor: c, by which the twin is multiplied.
        saliency: what that costs.
        difference: between the unit and c times its twin, relative to the unit.
    """

    removed: int
    twin: int
    factor: float
    saliency: float
    difference: float


def choose(pairs: Pairs, outgoing: Rows, *, most: int, limit: float = math.inf) -> list[Merge]:
    """Which units go, one after the other, each time the one with the least saliency.

    What a twin gives to the next layer grows by what it takes over, and with it its own saliency. A unit whose twin
    went is nearer to that one than to any other; so it looks for another one only when its saliency, as it was, is
    the least.

    Args:
        pairs: of all units.
        outgoing: what units give to the next layer.
        most: units that may go.
        limit: units that differ more from c times their twin, relative to themselves, stay. (Relative to all units
            it would be what the largest one allows: in small layers one may have nearly all of the energy.)

    Returns:
        In the order in which they have to be carried out.

    Raises:
        ValueError: the numbers of units differ, or not one unit would be left.
    """
    count = len(pairs.energy)
    if len(outgoing.squares) != count:
        raise ValueError(f"{len(outgoing.squares)} units give something, {count} are compared")
    if not 0 <= most < max(count, 1):
        raise ValueError(f"{most} of {count} units cannot go")
    left = _Left(pairs, outgoing, limit)
    merges: list[Merge] = []
    while len(merges) < most and (merge := left.take()) is not None:
        merges.append(merge)
    return merges


class _Left:
    """The units that are left, what they give, and their twins, of which some may have gone."""

    def __init__(self, pairs: Pairs, outgoing: Rows, limit: float) -> None:
        self._pairs, self._outgoing = pairs, outgoing
        self._most = limit**2 * pairs.energy if math.isfinite(limit) else np.full(len(pairs.energy), np.inf)
        self._alive = np.ones(len(pairs.energy), np.bool_)
        self._twin, self._nearest = pairs.twin.copy(), pairs.nearest.copy()
        self._nearest[self._nearest > self._most] = np.inf
        self._energy = outgoing.squares.copy()
        self._given: dict[int, Float64Array] = {}  # of the units that have taken something over

    def take(self) -> Merge | None:
        """Merge the unit with the least saliency; None where no unit has a twin."""
        while True:
            with np.errstate(invalid="ignore"):  # what gives nothing and has no twin: 0·∞
                saliency = np.where(self._alive & np.isfinite(self._nearest), self._energy * self._nearest, np.inf)
            gone = int(saliency.argmin())
            if not math.isfinite(saliency[gone]):
                return None
            kept = int(self._twin[gone])
            if self._alive[kept]:
                break
            self._seek(saliency)
        factor, nearest = self._pairs.factor(gone, kept), float(self._nearest[gone])
        self._give(gone, kept, factor)
        return Merge(gone, kept, factor, float(saliency[gone]), _difference(nearest, self._pairs.energy[gone]))

    def _seek(self, saliency: Float64Array) -> None:
        """Find new twins for the units with the least saliency of those that have none."""
        lost = np.flatnonzero(~self._alive[self._twin] & np.isfinite(saliency))
        lost = lost[np.argsort(saliency[lost], kind="stable")[:_AGAIN]]
        self._twin[lost], nearest = self._pairs.seek(lost, self._alive)
        self._nearest[lost] = np.where(nearest > self._most[lost], np.inf, nearest)

    def _give(self, gone: int, kept: int, factor: float) -> None:
        """What a unit gave is given by its twin."""
        given = self._given.pop(gone, None)
        handed = self._outgoing.row(gone) if given is None else given
        had = self._given.get(kept)
        total = (self._outgoing.row(kept) if had is None else had) + factor * handed
        self._given[kept], self._energy[kept] = total, float(total @ total)
        self._alive[gone] = False


def carry_out(weight: Array, merges: Sequence[Merge], *, axis: int, indices: NDArray[np.int64]) -> Array:
    """Give what removed units gave to their twins; what is left of the removed ones is zero.

    Args:
        weight: of the next layer, of any real dtype.
        merges: in the order in which they were chosen.
        axis: of the weight, along which units lie.
        indices: where on that axis, [units, slices of a unit].

    Returns:
        A new array of the same shape and dtype; sums are taken in float64.
    """
    touched = np.unique([unit for each in merges for unit in (each.removed, each.twin)])
    place = {int(unit): number for number, unit in enumerate(touched)}
    result = weight.copy()
    view = np.moveaxis(result, axis, 0)
    wide = view[indices[touched]].astype(np.float64) if len(touched) else np.zeros(0)
    for each in merges:
        gone, kept = place[each.removed], place[each.twin]
        wide[kept] += each.factor * wide[gone]
        wide[gone] = 0.0
    if len(touched):
        view[indices[touched]] = wide.astype(weight.dtype)
    return result


def _difference(cost: float, energy: float) -> float:
    """Relative to a unit; infinite of one that is nothing."""
    if not cost:
        return 0.0
    return math.sqrt(cost / energy) if energy else math.inf
