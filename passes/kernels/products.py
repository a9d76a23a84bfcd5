"""Inner products of rows, of which only those are computed that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array

IntArray: TypeAlias = NDArray[np.int64]

_COLUMNS = 1 << 20
"""Elements of a matrix that are widened to float64 at a time."""


class Products(Protocol):
    """Inner products of what belongs to units."""

    @property
    def squares(self) -> Float64Array:
        """Of each unit with itself, [n]."""

    def block(self, rows: IntArray, columns: IntArray) -> Float64Array:
        """Of some units with some others, [rows, columns], an array of its own."""


class Rows:
    """Inner products of rows, R·Rᵀ, taken in float64 where they are asked for.

    Attributes:
        parts: side by side the rows, each [n, k] of any real dtype.
        squares: of each row, [n].
    """

    def __init__(self, parts: Sequence[Array]) -> None:
        """Sum up the squares.

        Raises:
            ValueError: the parts have different numbers of rows, or some values are NaN or infinite.
        """
        if len({len(each) for each in parts}) != 1:
            raise ValueError("the parts are of different numbers of units")
        self.parts = tuple(parts)
        self.squares: Float64Array = np.zeros(len(parts[0]))
        for (wide,) in self._pieces(np.arange(len(parts[0]))):
            self.squares += np.einsum("nk,nk->n", wide, wide)
        if not np.isfinite(self.squares).all():
            raise ValueError("some of its weights are NaN or infinite")

    def block(self, rows: IntArray, columns: IntArray) -> Float64Array:
        """Of some rows with some others, [rows, columns]."""
        total = np.zeros((len(rows), len(columns)))
        for left, right in self._pieces(rows, columns):
            total += left @ right.T
        return total

    def row(self, number: int) -> Float64Array:
        """One row of all parts."""
        return np.concatenate([each[number].astype(np.float64) for each in self.parts])

    def _pieces(self, *chosen: IntArray) -> Iterator[list[Float64Array]]:
        """Some columns at a time, of each choice of rows."""
        for part in self.parts:
            step = max(1, _COLUMNS // max(1, *map(len, chosen)))
            for start in range(0, part.shape[1], step):
                yield [part[each, start : start + step].astype(np.float64) for each in chosen]


@dataclass(frozen=True, slots=True)
class Table:
    """Inner products that are known: `matrix` [n, n], symmetric, of any real dtype."""

    matrix: Array

    @property
    def squares(self) -> Float64Array:
        """Of each unit with itself, [n]."""
        return np.diagonal(self.matrix).astype(np.float64)

    def block(self, rows: IntArray, columns: IntArray) -> Float64Array:
        """Of some units with some others, [rows, columns]."""
        return self.matrix[np.ix_(rows, columns)].astype(np.float64)
