"""Which units stand best for which: distances of each from the best multiples of all others.

All pairs are compared, in tiles: no matrix of all pairs is ever held, only the nearest twin of each unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.products import IntArray, Products

Factors: TypeAlias = Literal["one", "positive", "any"]
"""What c may be."""

EQUAL = 1e-12
"""Relative squared distance below which twins are equal: they differ by no more than float32 rounds."""

_TILE = 1024
"""Units that are compared with as many others at a time."""

_Block: TypeAlias = tuple[Float64Array | None, Float64Array | None]
"""Inner products of sources, and of gains."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of what units are computed from, in the order of the graph: y = gain · (x + source).

    Attributes:
        source: inner products of what adds up to the units: incoming weights, biases; None where nothing does.
        gain: inner products of what multiplies them then: kernels of a depthwise convolution, slopes; None where
            nothing does.
    """

    source: Products | None
    gain: Products | None = None


class Pairs:
    """How well each unit stands for each other one: the squared distance of unit j from c times unit i.

    Attributes:
        energy: [n]; the squared size of each unit.
        twin: [n]; the unit that stands best for each.
        nearest: [n]; the squared distance from it; infinite where there is no other unit.
    """

    def __init__(self, stages: Sequence[Stage], factors: Factors) -> None:
        """Compare all units."""
        self._stages = tuple(stages)
        self._factors: Factors = factors
        count = _counts(stages).pop()
        self._weights: list[Float64Array] = []
        own = np.zeros(count)
        for stage in stages:
            own = own if stage.source is None else own + stage.source.squares
            # units of nothing but zeros may become something, by Sigmoid say, so their gains count a little
            self._weights.append(own + EQUAL * own.mean())
            own = own if stage.gain is None else own * stage.gain.squares
        self.energy: Float64Array = own
        self.twin: IntArray = np.zeros(count, np.int64)
        self.nearest: Float64Array = np.full(count, np.inf)
        tiles = [np.arange(start, min(start + _TILE, count)) for start in range(0, count, _TILE)]
        for number, rows in enumerate(tiles):
            for columns in tiles[number:]:
                blocks = self._blocks(rows, columns)
                self._meet(rows, columns, blocks)
                if columns is not rows:
                    self._meet(columns, rows, [_turned(each) for each in blocks])

    def costs(self, rows: IntArray, columns: IntArray) -> Float64Array:
        """Squared distances of some units from c times some others, [rows, columns]; infinite from themselves."""
        return self._costs(rows, columns, self._blocks(rows, columns))

    def factor(self, unit: int, twin: int) -> float:
        """The c for which c times `twin` is closest to `unit`."""
        ends = np.array([unit, twin])
        cross, other, _ = self._added(ends[:1], ends[1:], self._blocks(ends[:1], ends[1:]))
        return 1.0 if self._factors == "one" else float(_best(cross, other, self._factors).item())

    def seek(self, rows: IntArray, alive: NDArray[np.bool_]) -> tuple[IntArray, Float64Array]:
        """The best twins of some units among those that are left, and the squared distances, [rows] each."""
        left, twin, nearest = np.flatnonzero(alive), np.zeros(len(rows), np.int64), np.full(len(rows), np.inf)
        for start in range(0, len(left), _TILE):
            columns = left[start : start + _TILE]
            _lower(twin, nearest, columns, self.costs(rows, columns))
        return twin, nearest

    def _meet(self, rows: IntArray, columns: IntArray, blocks: Sequence[_Block]) -> None:
        """Take note of better twins; columns come in ascending order, so of equal ones the first stays."""
        span = slice(rows[0], rows[-1] + 1)
        _lower(self.twin[span], self.nearest[span], columns, self._costs(rows, columns, blocks))

    def _blocks(self, rows: IntArray, columns: IntArray) -> list[_Block]:
        """Inner products of sources and of gains, by stage."""
        return [
            (
                None if stage.source is None else stage.source.block(rows, columns),
                None if stage.gain is None else stage.gain.block(rows, columns),
            )
            for stage in self._stages
        ]

    def _costs(self, rows: IntArray, columns: IntArray, blocks: Sequence[_Block]) -> Float64Array:
        cross, other, gains = self._added(rows, columns, blocks)
        own = self.energy[rows, np.newaxis]
        # own - 2·c·cross + c²·other
        if self._factors == "one":
            cost = -2 * cross
            cost += other
        else:
            best = _best(cross, other, self._factors)
            cost = best * other
            cost -= 2 * cross
            cost *= best
        cost += own
        cost[cost < EQUAL * own] = 0.0
        cost += gains
        cost[rows[:, np.newaxis] == columns] = np.inf
        return cost

    def _added(
        self, rows: IntArray, columns: IntArray, blocks: Sequence[_Block]
    ) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Behind all stages: products j·i, squares of i (as j's gains make them), and errors of the gains."""
        cross, other = np.zeros((len(rows), len(columns))), np.zeros((1, len(columns)))
        gains = np.zeros((1, 1))
        for stage, weight, (source, gain) in zip(self._stages, self._weights, blocks, strict=True):
            if source is not None and stage.source is not None:
                cross = cross + source
                other = other + stage.source.squares[columns]
            if gain is not None and stage.gain is not None:
                square = stage.gain.squares[rows, np.newaxis]
                differ = _distances(gain, square, stage.gain.squares[columns])
                gains = gains * square + weight[rows, np.newaxis] * differ
                cross, other = cross * square, other * square
        return cross, other, gains


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
    if len(_counts(stages)) != 1:
        raise ValueError("the stages are of different numbers of units")
    return Pairs(stages, factors)


def _counts(stages: Sequence[Stage]) -> set[int]:
    """Numbers of units, of which there should be one."""
    return {len(each.squares) for stage in stages for each in (stage.source, stage.gain) if each is not None}


def _turned(block: _Block) -> _Block:
    """The same products, of columns with rows."""
    source, gain = block
    return None if source is None else source.T, None if gain is None else gain.T


def _lower(twin: IntArray, nearest: Float64Array, columns: IntArray, cost: Float64Array) -> None:
    """Write down, in place, what is nearer than the nearest so far."""
    best = cost.argmin(axis=1)
    least = cost[np.arange(len(cost)), best]
    better = least < nearest
    twin[better], nearest[better] = columns[best[better]], least[better]


def _distances(products: Float64Array, rows: Float64Array, columns: Float64Array) -> Float64Array:
    """Squared distances, from products and squares, [rows, columns]."""
    distance = -2 * products
    distance += rows
    distance += columns
    distance[distance < EQUAL * rows] = 0.0
    return distance


def _best(cross: Float64Array, square: Float64Array, factors: Factors) -> Float64Array:
    """The c for which c·i is closest to j."""
    if factors == "one":
        return np.ones_like(cross)
    best = np.divide(cross, square, out=np.zeros_like(cross), where=square > 0)
    return np.maximum(best, 0.0, out=best) if factors == "positive" else best
