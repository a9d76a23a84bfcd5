"""Sharing a total out among items that each have several options: how much to prune of each layer, for example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxpress.passes.kernels.arrays import Array

_SLACK = 1e-12  # of all amounts: what rounding of a sum may leave open


@dataclass(frozen=True, slots=True)
class Option:
    """One way to treat an item.

    Attributes:
        amount: what is gained by it: weights removed, bytes, multiply-adds.
        error: what it costs; costs of items add up, as noise energies do.
    """

    amount: float
    error: float


@dataclass(frozen=True, slots=True)
class _Step:
    """From one corner of an item's hull to the next."""

    slope: float
    item: int
    position: int
    option: int
    amount: float


def allocate(options: Sequence[Sequence[Option]], target: float) -> list[int]:
    """Choose one option for each item: least Σ error with Σ amount ≥ target (see `Frontier`).

    Args:
        options: for each item at least one, in any order.
        target: in units of `amount`.

    Returns:
        the number of the option of each item.

    Raises:
        ValueError: an item has no option, a figure is not finite, or all items together do not reach the target.
    """
    return Frontier(options).least(target)


class Frontier:
    """Items with their options, ready to reach one target after another.

    For a price λ of the amount, argmin Σ (error - λ·amount) lies on the items' lower convex hulls (Everett, 1963).
    Going along all hulls in the order of their slopes gives the least error for each sum that is met on the way
    (Shoham and Gersho, 1988). Where the target lies between two such sums, single items are moved to other options, on
    the hull or not, as long as that lowers the error; the result is above the optimum by at most the error of one step.
    """

    def __init__(self, options: Sequence[Sequence[Option]]) -> None:
        """Find the hulls.

        Args:
            options: for each item at least one, in any order.

        Raises:
            ValueError: an item has no option, or a figure is not finite.
        """
        if not all(options):
            raise ValueError("an item without options cannot be decided")
        if not all(math.isfinite(option.amount) and math.isfinite(option.error) for each in options for option in each):
            raise ValueError("amounts and errors must be finite")
        self._most = math.fsum(max(option.amount for option in each) for each in options)
        self._amounts, self._errors = _padded(options)
        hulls = [hull(each) for each in options]
        self._start = np.array([hull[0] for hull in hulls], np.int64)
        steps = sorted(_steps(options, hulls), key=lambda each: (each.slope, each.item, each.position))
        self._items = np.array([each.item for each in steps], np.int64)
        self._options = np.array([each.option for each in steps], np.int64)
        before = self._amounts[np.arange(len(hulls)), self._start].sum()
        self._reached = before + np.cumsum([each.amount for each in steps])

    def least(self, target: float) -> list[int]:
        """The number of the option of each item, with which the target is reached at the least error.

        Raises:
            ValueError: the target is not finite, or beyond all items together.
        """
        if not math.isfinite(target):
            raise ValueError(f"the target must be finite, got {target}")
        if self._most < target - _SLACK * abs(target):
            raise ValueError(f"all options together amount to {self._most:g}, less than the target {target:g}")
        if not self._start.size:
            return []
        amounts, errors, rows = self._amounts, self._errors, np.arange(len(self._start))
        need = target - _SLACK * (abs(target) + float(np.abs(amounts).max(axis=1).sum()))
        count = 0
        if amounts[rows, self._start].sum() < need:
            count = min(int(np.searchsorted(self._reached, need)) + 1, len(self._items))
        before = _close(amounts, errors, self._after(max(0, count - 1)), need)
        best = min(
            (_improve(amounts, errors, start, need) for start in (self._after(count), before)),
            key=lambda each: float(errors[rows, each].sum()),
        )
        return [int(each) for each in best]

    def _after(self, count: int) -> Array:
        """The options after so many steps along the hulls; of one item the last step counts."""
        chosen = self._start.copy()
        chosen[self._items[:count]] = self._options[:count]
        return chosen


def _padded(options: Sequence[Sequence[Option]]) -> tuple[Array, Array]:
    """Amounts and errors, [items, options]; the last option of an item is repeated."""
    most = max(map(len, options), default=0)
    full = [[*each, *[each[-1]] * (most - len(each))] for each in options]
    amounts = np.array([[option.amount for option in each] for each in full], np.float64)
    errors = np.array([[option.error for option in each] for each in full], np.float64)
    return amounts.reshape(len(full), most), errors.reshape(len(full), most)


def hull(options: Sequence[Option]) -> list[int]:
    """The lower convex hull of error over amount, from the least error to the largest amount; slopes ascend."""
    ranked = sorted(range(len(options)), key=lambda each: (options[each].error, -options[each].amount))
    corners = ranked[:1]
    for each in sorted(ranked, key=lambda each: options[each].amount):  # of equal amounts the least error comes first
        if options[each].amount <= options[corners[-1]].amount:
            continue
        while len(corners) > 1 and _slope(options, corners[-2], corners[-1]) > _slope(options, corners[-1], each):
            corners.pop()
        corners.append(each)
    return corners


def _slope(options: Sequence[Option], first: int, second: int) -> float:
    return (options[second].error - options[first].error) / (options[second].amount - options[first].amount)


def _steps(options: Sequence[Sequence[Option]], hulls: Sequence[Sequence[int]]) -> list[_Step]:
    return [
        _Step(
            _slope(options[item], first, second),
            item,
            position,
            second,
            options[item][second].amount - options[item][first].amount,
        )
        for item, hull in enumerate(hulls)
        for position, (first, second) in enumerate(pairwise(hull))
    ]


def _close(amounts: Array, errors: Array, start: Array, need: float) -> Array:
    """The cheapest move of one item that reaches the target; `start` where it reaches it already."""
    rows = np.arange(len(start))
    total = amounts[rows, start].sum()
    reaching = total + amounts - amounts[rows, start][:, None] >= need
    cost = np.where(reaching, errors - errors[rows, start][:, None], np.inf)
    item, option = np.unravel_index(int(np.argmin(cost)), cost.shape)
    moved = start.copy()
    if total < need:
        moved[item] = option
    return moved


def _improve(amounts: Array, errors: Array, start: Array, need: float) -> Array:
    """Move one item at a time, where that lowers the error most and the target stays reached."""
    rows, chosen = np.arange(len(start)), start.copy()
    while True:
        surplus = amounts[rows, chosen].sum() - need
        allowed = amounts[rows, chosen][:, None] - amounts <= surplus
        gain = np.where(allowed, errors[rows, chosen][:, None] - errors, 0)
        item, option = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[item, option] <= 0:
            return chosen
        chosen[item] = option
