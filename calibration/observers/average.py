"""The mean of the ranges of single batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import FloatArray, Wish
from onnxpress.calibration.observers.minmax import MinMax
from onnxpress.rewriter.errors import ConfigError


class MovingAverage:
    """The mean over batches of the least and of the greatest entry, per tensor or per channel.

    A rare extreme widens the range only by its share of the batches. All batches weigh the same, so that parts can be
    merged in any order. NaN and infinities are left out and counted; a batch of nothing else does not count.

    Attributes:
        axis: the channel axis, negative ones from the end; None for one range of the whole tensor.
        batches: how many were seen, int64 [] or [channels].
        ignored: number of entries that were NaN or infinite.
    """

    kind: ClassVar[str] = "average"

    def __init__(self, *, axis: int | None = None) -> None:
        """Start with nothing seen."""
        self.axis = axis
        self.batches: Array = np.zeros((), np.int64)
        self.ignored = 0
        self._low: FloatArray = np.zeros(())
        self._high: FloatArray = np.zeros(())

    @property
    def low(self) -> FloatArray:
        """Mean of the least entries, float64 [] or [channels]; inf where none was seen."""
        return np.where(self.batches > 0, self._low / np.maximum(self.batches, 1), np.inf)

    @property
    def high(self) -> FloatArray:
        """Mean of the greatest entries, likewise; −inf where none was seen."""
        return np.where(self.batches > 0, self._high / np.maximum(self.batches, 1), -np.inf)

    @property
    def empty(self) -> bool:
        """Whether some channel, or the tensor, has shown no finite entry yet."""
        return bool((self.batches == 0).any())

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept.

        Raises:
            ConfigError: the tensor lacks the axis, or its number of channels changed.
        """
        seen = MinMax(axis=self.axis)
        seen.update(array)
        self._add(seen)

    def reductions(self, rank: int | None, /) -> Sequence[Wish]:
        """Smallest and largest entry; per channel only where the rank is known."""
        return MinMax(axis=self.axis).reductions(rank)

    def update_reduced(self, values: Sequence[Array], /) -> None:
        """Look at the smallest and the largest entries of one batch."""
        seen = MinMax(axis=self.axis)
        seen.update_reduced(values)
        self._add(seen)

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw of the same tensor.

        Raises:
            ConfigError: it has another axis, or another number of channels.
        """
        if self.axis != other.axis:
            raise ConfigError(f"a mean range along axis {self.axis} cannot take in one along axis {other.axis}")
        self._sum(other._low, other._high, other.batches)
        self.ignored += other.ignored

    def state(self) -> dict[str, Array]:
        """Everything needed to go on later; `from_state` takes it."""
        axis = np.array([] if self.axis is None else [self.axis], dtype=np.int64)
        sums = {"low": self._low, "high": self._high, "batches": self.batches}
        return {"axis": axis, **sums, "ignored": np.array(self.ignored)}

    @classmethod
    def from_state(cls, state: Mapping[str, Array], /) -> Self:
        """Go on from a `state`."""
        observer = cls(axis=int(state["axis"][0]) if state["axis"].size else None)
        observer._sum(state["low"].astype(np.float64), state["high"].astype(np.float64), state["batches"])
        observer.ignored = int(state["ignored"])
        return observer

    def _add(self, seen: MinMax) -> None:
        there = np.asarray(seen.low <= seen.high)
        self._sum(np.where(there, seen.low, 0), np.where(there, seen.high, 0), there.astype(np.int64))
        self.ignored += seen.ignored

    def _sum(self, low: FloatArray, high: FloatArray, batches: Array) -> None:
        if self.batches.ndim and batches.ndim and self.batches.shape != batches.shape:
            raise ConfigError(f"{self.batches.size} channels became {batches.size}; observe the whole tensor instead")
        self._low, self._high = self._low + low, self._high + high
        self.batches = self.batches + batches
