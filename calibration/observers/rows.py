"""A sample of what a linear layer reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import FloatArray
from onnxpress.calibration.views import LastAxis, View, spread
from onnxpress.calibration.views import Rows as RowArray
from onnxpress.rewriter.errors import ConfigError

_FINGERPRINT = 4096
"""Entries of a batch from which its random numbers are seeded."""


class Rows:
    """A uniform sample of the rows of a tensor over all batches.

    Every row draws a random key; the rows with the smallest keys stay. Keys depend on seed and content of the batch
    alone, so the order and the grouping of batches make no difference. Rows that hold NaN or infinities are left out
    and counted in `ignored`.

    Attributes:
        view: how the tensor is seen as rows.
        limit: rows kept at most.
        seed: same seed, same sample.
        rows: float32 [groups, n <= limit, k], by key; [0, 0, 0] before anything was seen.
        keys: float64 [n], ascending.
        ignored: rows that were left out where they would have been kept.
    """

    def __init__(self, *, view: View | None = None, count: int = 1024, seed: int = 0) -> None:
        """Start with nothing seen.

        Raises:
            ConfigError: less than one row, or a negative seed.
        """
        if count < 1 or seed < 0:
            raise ConfigError(f"count {count}, seed {seed}: keep 1 row or more, and give a seed of 0 or more")
        self.view: View = view or LastAxis()
        self.limit = count
        self.seed = seed
        self.rows: RowArray = np.zeros((0, 0, 0), np.float32)
        self.keys: FloatArray = np.zeros(0)
        self.ignored = 0

    @property
    def empty(self) -> bool:
        """Whether no row was kept yet."""
        return not len(self.keys)

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept.

        Raises:
            ConfigError: the view sees no rows in it, or rows of another length than before.
        """
        for positions, keys in self._candidates(array):
            rows = self.view.rows(array, positions)
            finite = np.asarray(np.isfinite(rows).all(axis=(0, 2)))
            self.ignored += int(len(finite) - np.count_nonzero(finite))
            self._take(rows[:, finite], keys[finite])

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw of the same tensor.

        Raises:
            ConfigError: it was set up otherwise.
        """
        mine, others = (self.view, self.limit, self.seed), (other.view, other.limit, other.seed)
        if mine != others:
            raise ConfigError(f"a sample of (view, count, seed) {mine} cannot take in one of {others}")
        self.ignored += other.ignored
        if not other.empty:
            self._take(other.rows, other.keys)

    def state(self) -> dict[str, Array]:
        """Everything but the view, to go on later; `from_state` takes it."""
        return {"rows": self.rows, "keys": self.keys, "counts": np.array([self.limit, self.seed, self.ignored])}

    @classmethod
    def from_state(cls, state: Mapping[str, Array], *, view: View | None = None) -> Self:
        """Go on from a `state`.

        Args:
            state: of an observer with the same view.
            view: as it was.
        """
        limit, seed, ignored = (int(each) for each in state["counts"])
        observer = cls(view=view, count=limit, seed=seed)
        observer.rows, observer.keys = state["rows"].astype(np.float32), state["keys"].astype(np.float64)
        observer.ignored = ignored
        return observer

    def warnings(self, tensor: str) -> tuple[str, ...]:
        """What the user must know about the sample of `tensor`."""
        return (f"{tensor!r}: {self.ignored} rows hold NaN or infinities and do not count",) if self.ignored else ()

    def _candidates(self, array: Array) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
        """Positions and keys that may be kept, smallest keys first, as many at a time as are kept at most."""
        keys = np.random.default_rng([self.seed, _fingerprint(array)]).random(self.view.count(array.shape))
        order = np.flatnonzero(keys < self._bar)
        order = order[np.argsort(keys[order], kind="stable")]
        for start in range(0, len(order), self.limit):
            chosen = order[start : start + self.limit]
            if keys[chosen[0]] >= self._bar:
                return
            yield chosen, keys[chosen]

    @property
    def _bar(self) -> float:
        """Keys from here on are not kept."""
        return float(self.keys[-1]) if len(self.keys) == self.limit else 1.0

    def _take(self, rows: RowArray, keys: FloatArray) -> None:
        if not len(keys):
            return
        if not self.empty and self.rows.shape[::2] != rows.shape[::2]:
            before, now = self.rows.shape[::2], rows.shape[::2]
            raise ConfigError(f"rows of {list(before)} groups and entries became {list(now)}; use one model and view")
        every = np.concatenate([self.keys, keys])
        order = np.argsort(every, kind="stable")[: self.limit]
        self.rows = np.concatenate([self.rows, rows], axis=1)[:, order] if len(self.keys) else rows[:, order]
        self.keys = every[order]


def _fingerprint(array: Array) -> int:
    """A number that tells one batch from another."""
    some = array.reshape(-1)[spread(array.size, _FINGERPRINT)]
    return zlib.crc32(np.ascontiguousarray(some).tobytes(), zlib.crc32(repr(array.shape).encode()))
