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
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array

Factors: TypeAlias = Literal["one", "positive", "any"]
"""What c may be."""

EQUAL = 1e-12
"""Relative squared distance below which twins are equal: they differ by no more than float32 rounds."""

_COLUMNS = 1 << 22
"""Elements of a matrix that are widened to float64 at a time."""


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


def gram(rows: Array) -> Float64Array:
    """All inner products of rows, R·Rᵀ, in float64; not all columns are widened at once.

    Args:
        rows: [n, k], of any real dtype.

    Returns:
        [n, n].

    Raises:
        ValueError: some are NaN or infinite.
    """
    count, width = rows.shape
    total = np.zeros((count, count))
    step = max(1, _COLUMNS // max(1, count))
    for start in range(0, width, step):
        wide = rows[:, start : start + step].astype(np.float64)
        total += wide @ wide.T
    if not np.isfinite(np.diagonal(total)).all():
        raise ValueError("some of its weights are NaN or infinite")
    return total


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of what units are computed from, in the order of the graph: y = gain · (x + source).

    Attributes:
        source: inner products of what adds up to the units, [n, n]: incoming weights, biases.
        gain: inner products of what multiplies them then, [n, n]: kernels of a depthwise convolution, slopes; None
            where nothing does.
    """

    source: Float64Array
    gain: Float64Array | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """How well each unit stands for each other one.

    Attributes:
        factor: [n, n]; factor[j, i] is the best c for j = c·i.
        cost: [n, n]; cost[j, i] is the squared distance of j from c times i; infinite for i = j.
        energy: [n]; the squared size of each unit.
    """

    factor: Float64Array
    cost: Float64Array
    energy: Float64Array


def compare(stages: Sequence[Stage], *, factors: Factors) -> Pairs:
    """Compare all units with each other.

    Sources may differ by one factor c, the same in all stages; gains must agree as they are. Errors of either count as
    they come out behind the last stage, products of errors not.

    Args:
        stages: what units are computed from.
        factors: what c may be.

    Raises:
        ValueError: no stages, or of different numbers of units.
    """
    if len({each.source.shape for each in stages} | {each.gain.shape for each in stages if each.gain is not None}) != 1:
        raise ValueError("the stages are of different numbers of units")
    count = len(stages[0].source)
    own, cross, other, gains = np.zeros((count, 1)), np.zeros((count, count)), np.zeros((count, count)), 0.0
    for stage in stages:
        square = np.diagonal(stage.source)
        own += square[:, np.newaxis]
        cross += stage.source
        other += square
        if stage.gain is not None:
            square = np.diagonal(stage.gain)[:, np.newaxis]
            # units of nothing but zeros may become something, by Sigmoid say, so their gains count a little
            gains = gains * square + (own + EQUAL * own.mean()) * _distances(stage.gain)
            for each in (own, cross, other):
                each *= square
    factor = _best(cross, other, factors)
    cost = own - 2 * factor * cross + factor**2 * other
    cost[cost < EQUAL * own] = 0.0
    cost = np.maximum(cost, 0.0) + gains
    np.fill_diagonal(cost, np.inf)
    return Pairs(factor, cost, own[:, 0])


def choose(pairs: Pairs, outgoing: Float64Array, *, most: int, limit: float = math.inf) -> list[Merge]:
    """Which units go, one after the other, each time the one with the least saliency.

    What a twin gives to the next layer grows by what it takes over, and with it its own saliency.

    Args:
        pairs: of all units.
        outgoing: inner products of what units give to the next layer, [n, n].
        most: units that may go.
        limit: units that differ more from c times their twin, relative to themselves, stay. (Relative to all units
            it would be what the largest one allows: in small layers one may have nearly all of the energy.)

    Returns:
        In the order in which they have to be carried out.

    Raises:
        ValueError: the shapes differ, or not one unit would be left.
    """
    count = len(pairs.energy)
    if outgoing.shape != (count, count):
        raise ValueError(f"{outgoing.shape[0]} units give something, {count} are compared")
    if not 0 <= most < max(count, 1):
        raise ValueError(f"{most} of {count} units cannot go")
    given, alive = outgoing.copy(), np.ones(count, np.bool_)
    cost = pairs.cost.copy()
    if math.isfinite(limit):
        cost[cost > limit**2 * pairs.energy[:, np.newaxis]] = np.inf
    twin = cost.argmin(axis=1)
    nearest = cost[np.arange(count), twin]
    merges: list[Merge] = []
    while len(merges) < most:
        with np.errstate(invalid="ignore"):  # what gives nothing and has no twin: 0·∞
            saliency = np.where(alive & np.isfinite(nearest), np.diagonal(given) * nearest, np.inf)
        gone = int(saliency.argmin())
        if not math.isfinite(saliency[gone]):
            break
        kept = int(twin[gone])
        factor = float(pairs.factor[gone, kept])
        merges.append(Merge(gone, kept, factor, float(saliency[gone]), _difference(nearest[gone], pairs.energy[gone])))
        given[kept] += factor * given[gone]
        given[:, kept] += factor * given[:, gone]
        alive[gone], cost[:, gone] = False, np.inf
        lost = np.flatnonzero(alive & (twin == gone))
        twin[lost] = cost[lost].argmin(axis=1)
        nearest[lost] = cost[lost, twin[lost]]
    return merges


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


def _distances(products: Float64Array) -> Float64Array:
    """Squared distances, [n, n]."""
    squares = np.diagonal(products)
    distance = squares[:, np.newaxis] - 2 * products + squares
    distance[distance < EQUAL * squares[:, np.newaxis]] = 0.0
    return np.maximum(distance, 0.0)


def _best(cross: Float64Array, square: Float64Array, factors: Factors) -> Float64Array:
    """The c for which c·i is closest to j."""
    if factors == "one":
        return np.ones_like(cross)
    best = np.divide(cross, square, out=np.zeros_like(cross), where=square > 0)
    return np.maximum(best, 0.0) if factors == "positive" else best
