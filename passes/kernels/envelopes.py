"""Which of several values is the cheapest for each weight, where values have prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.intervals import Ints, running
from onnxpress.passes.kernels.points import points_of

STEPS = 2
"""Steps of importance for each factor of two: h within 19 % of what it is taken for."""

_LEAST = -20
"""The least step of importance: 2^-10 of the greatest."""


@dataclass(frozen=True, slots=True)
class Part:
    """Weights of about the same importance, ascending, with running sums; zeros that stay are only counted.

    Attributes:
        level: their importance.
        value: distinct ones, [points].
        number: how many weights there are before each point, and in all, [points + 1].
        moment: their sum.
        square: the sum of their squares.
        zeros: weights that stay zero.
    """

    level: float
    value: Float64Array
    number: Float64Array
    moment: Float64Array
    square: Float64Array
    zeros: int

    @classmethod
    def of(cls, values: Array, level: float, *, keep_zero: bool) -> Part:
        """Sort weights of one level of importance; of any shape, perhaps none."""
        if not values.size:
            nothing = np.zeros(1)
            return cls(level, np.zeros(0), nothing, nothing, nothing, 0)
        points = points_of(values, keep_zero=keep_zero)
        value, mass = points.value.astype(np.float64), points.masses
        zeros = int(mass[value == 0].sum()) if keep_zero else 0
        if zeros:
            value, mass = value[value != 0], mass[value != 0]
        return cls(level, value, running(mass), running(mass * value), running(mass * value**2), zeros)

    def places(self, borders: Float64Array) -> Ints:
        """Where the points of each interval between borders begin, and the end."""
        inner = np.searchsorted(self.value, borders, side="right")
        return np.concatenate([[0], inner, [self.value.size]])

    def lost(self, values: Float64Array, places: Ints) -> float:
        """Σ (w − value)², each interval between places going to one value."""
        number, first, second = (spans(sums, places) for sums in (self.number, self.moment, self.square))
        return max(0.0, float((second - 2 * values * first + values**2 * number).sum()))


def envelope(values: Float64Array, costs: Float64Array) -> tuple[Ints, Float64Array]:
    """Which values are the cheapest somewhere by (w − value)² + cost, and the borders between these.

    (w − v)² + cost is w² and a line in w, so the cheapest are the lower envelope of lines. One whose borders to its
    neighbours cross is nowhere below both, so all such go at once.
    """
    offset = values**2 + costs
    lines = np.arange(values.size)
    while True:
        # slices: for so few values np.diff takes longer than the differences themselves, and this is run a great deal
        height, place = offset[lines], values[lines]
        borders = (height[1:] - height[:-1]) / (2 * (place[1:] - place[:-1]))
        apart = borders[1:] > borders[:-1]
        if apart.all():
            return lines, borders
        lines = np.concatenate([lines[:1], lines[1:-1][apart], lines[-1:]])


def spans(sums: Float64Array, places: Ints) -> Float64Array:
    """What running sums grow by from each place to the next."""
    at = sums[places]
    return np.asarray(at[1:] - at[:-1])


def cells_of(value: Float64Array, step: float) -> Float64Array:
    """Which multiples of the step are nearest to some of ascending values."""
    nearest = np.rint(value / step) + 0.0
    return np.asarray(nearest[np.flatnonzero(np.diff(nearest, prepend=np.nan) != 0)])


def steps_of(weights: Array, top: float) -> Ints:
    """By how many steps each importance is below the greatest."""
    with np.errstate(divide="ignore"):
        below = np.rint(STEPS * np.log2(weights.astype(np.float64) / top))
    return np.asarray(-np.maximum(below, _LEAST), np.int64)
