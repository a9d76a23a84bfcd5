"""Second moments of what a linear layer reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import FloatArray
from onnxpress.calibration.views import LastAxis, Positions, View, spread
from onnxpress.rewriter.errors import ConfigError

_PIECE = 1 << 22
"""Entries of rows held at once: 16 MB."""


class SecondMoment:
    """Sums of the rows of a tensor, and of their products: what the squared error of a layer's output depends on.

    For a weight error E of one group, Σ‖E·x‖² = tr(E·M·Eᵀ) with M = Σ x·xᵀ. Rows that hold NaN or infinities are left
    out and counted in `ignored`.

    Attributes:
        view: how the tensor is seen as rows.
        per_batch: rows taken of one batch at most, evenly spread.
        total: Σ x·xᵀ, float32 [groups, k, k]; [0, 0, 0] before anything was seen.
        sum: Σ x, float64 [groups, k].
        count: rows summed, in each group.
        ignored: rows that were left out.
    """

    def __init__(self, *, view: View | None = None, per_batch: int = 4096) -> None:
        """Start with nothing seen.

        Raises:
            ConfigError: less than one row a batch.
        """
        if per_batch < 1:
            raise ConfigError(f"per_batch {per_batch}: take 1 row a batch or more")
        self.view: View = view or LastAxis()
        self.per_batch = per_batch
        self.total: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)
        self.sum: FloatArray = np.zeros((0, 0))
        self.count = 0
        self.ignored = 0

    @property
    def empty(self) -> bool:
        """Whether no row was summed yet."""
        return self.count == 0

    @property
    def mean(self) -> FloatArray:
        """The mean row, [groups, k]; zeros before anything was seen."""
        return self.sum / max(1, self.count)

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept.

        Raises:
            ConfigError: the view sees no rows in it, or rows of another length than before.
        """
        for positions in self._pieces(array):
            rows = self.view.rows(array, positions)
            finite = np.asarray(np.isfinite(rows).all(axis=(0, 2)))
            if not finite.all():
                self.ignored += int(len(finite) - np.count_nonzero(finite))
                rows = rows[:, finite]
            if rows.shape[1]:
                with np.errstate(over="ignore"):  # infinite products are for those who use them to refuse
                    products = rows.transpose(0, 2, 1) @ rows
                self._add(products, rows.sum(axis=1, dtype=np.float64), rows.shape[1])

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw of the same tensor.

        Raises:
            ConfigError: it sees the tensor otherwise.
        """
        if self.view != other.view:
            raise ConfigError(f"moments of {self.view} cannot take in those of {other.view}")
        self.ignored += other.ignored
        if not other.empty:
            self._add(other.total, other.sum, other.count)

    def state(self) -> dict[str, Array]:
        """Everything but the view, to go on later; `from_state` takes it."""
        counts = np.array([self.per_batch, self.count, self.ignored])
        return {"total": self.total, "sum": self.sum, "counts": counts}

    @classmethod
    def from_state(cls, state: Mapping[str, Array], *, view: View | None = None) -> Self:
        """Go on from a `state`.

        Args:
            state: of an observer with the same view.
            view: as it was.
        """
        observer = cls(view=view, per_batch=int(state["counts"][0]))
        observer.total, observer.sum = state["total"].astype(np.float32), state["sum"].astype(np.float64)
        observer.count, observer.ignored = int(state["counts"][1]), int(state["counts"][2])
        return observer

    def warnings(self, tensor: str) -> tuple[str, ...]:
        """What the user must know about the moments of `tensor`."""
        return (f"{tensor!r}: {self.ignored} rows hold NaN or infinities and do not count",) if self.ignored else ()

    def _pieces(self, array: Array) -> Iterator[Positions]:
        """Positions of the rows to take, in pieces that are small when unfolded."""
        positions = spread(self.view.count(array.shape), self.per_batch)
        if len(positions):
            groups, _, width = self.view.rows(array, positions[:1]).shape
            step = max(1, _PIECE // max(1, groups * width))
            yield from (positions[start : start + step] for start in range(0, len(positions), step))

    def _add(self, total: NDArray[np.float32], total_of_rows: FloatArray, count: int) -> None:
        if self.count and self.total.shape != total.shape:
            before, now = self.total.shape[::2], total.shape[::2]
            raise ConfigError(f"rows of {list(before)} groups and entries became {list(now)}; use one model and view")
        # Never in place: the state may share the array.
        self.total = self.total + total if self.count else total
        self.sum = self.sum + total_of_rows if self.count else total_of_rows
        self.count += count
