"""The least and the greatest entry of a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import FloatArray, Reduction, Wish
from onnxpress.rewriter.errors import ConfigError


class MinMax:
    """The range of a tensor, per tensor or per channel.

    NaN and infinities are left out and counted in `ignored`: an attention mask of −inf has no range to quantize.

    Attributes:
        axis: the channel axis, negative ones from the end; None for one range of the whole tensor.
        low: smallest finite entry, float64 [] or [channels]; inf where none was seen.
        high: largest finite entry, likewise; −inf where none was seen.
        ignored: number of entries that were NaN or infinite.
    """

    kind: ClassVar[str] = "minmax"

    def __init__(self, *, axis: int | None = None) -> None:
        """Start with nothing seen."""
        self.axis = axis
        self.low: FloatArray = np.array(np.inf)
        self.high: FloatArray = np.array(-np.inf)
        self.ignored = 0

    @property
    def empty(self) -> bool:
        """Whether some channel, or the tensor, has shown no finite entry yet."""
        return bool((self.low > self.high).any())

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept.

        Raises:
            ConfigError: the tensor lacks the axis, or its number of channels changed.
        """
        axes = self._others(array.ndim)
        if array.size:
            low, high = array.min(axis=axes), array.max(axis=axes)
            if np.isfinite(low).all() and np.isfinite(high).all():
                self._widen(low, high)
                return
        finite = np.isfinite(array)
        values = array.astype(np.float64)
        low = np.where(finite, values, np.inf).min(axis=axes, initial=np.inf)
        self._widen(low, np.where(finite, values, -np.inf).max(axis=axes, initial=-np.inf))
        self.ignored += array.size - int(np.count_nonzero(finite))

    def reductions(self, rank: int | None, /) -> Sequence[Wish]:
        """Smallest and largest entry; per channel only where the rank is known."""
        if self.axis is None:
            return Reduction("ReduceMin"), Reduction("ReduceMax")
        if rank is None:
            return ()
        axes = self._others(rank)
        return (Reduction("ReduceMin", axes), Reduction("ReduceMax", axes)) if axes else ()

    def update_reduced(self, values: Sequence[Array], /) -> None:
        """Look at the smallest and the largest entries of one batch."""
        low, high = values
        self._widen(low, high)

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw of the same tensor.

        Raises:
            ConfigError: it has another axis, or another number of channels.
        """
        if self.axis != other.axis:
            raise ConfigError(f"a range along axis {self.axis} cannot take in one along axis {other.axis}")
        self._widen(other.low, other.high)
        self.ignored += other.ignored

    def state(self) -> dict[str, Array]:
        """Everything needed to go on later; `from_state` takes it."""
        axis = np.array([] if self.axis is None else [self.axis], dtype=np.int64)
        return {"axis": axis, "low": self.low, "high": self.high, "ignored": np.array(self.ignored)}

    @classmethod
    def from_state(cls, state: Mapping[str, Array], /) -> Self:
        """Go on from a `state`."""
        observer = cls(axis=int(state["axis"][0]) if state["axis"].size else None)
        observer.low, observer.high = state["low"].astype(np.float64), state["high"].astype(np.float64)
        observer.ignored = int(state["ignored"])
        return observer

    def warnings(self, tensor: str) -> tuple[str, ...]:
        """What the user must know about the range of `tensor`."""
        found = []
        if self.ignored:
            found.append(f"{tensor!r}: {self.ignored} entries are NaN or infinite and do not count for its range")
        if self.empty:
            found.append(f"{tensor!r}: no finite entry was seen, it has no range")
        return tuple(found)

    def _others(self, rank: int) -> tuple[int, ...] | None:
        """All axes but the channel axis; None for all axes."""
        if self.axis is None:
            return None
        if not -rank <= self.axis < rank:
            raise ConfigError(f"axis {self.axis} of a tensor with {rank} axes does not exist; choose another")
        return tuple(axis for axis in range(rank) if axis != self.axis % rank)

    def _widen(self, low: Array, high: Array) -> None:
        if self.low.ndim and low.ndim and self.low.shape != low.shape:
            raise ConfigError(f"{self.low.size} channels became {low.size}; observe the whole tensor instead")
        self.low = np.minimum(self.low, low.astype(np.float64))
        self.high = np.maximum(self.high, high.astype(np.float64))
