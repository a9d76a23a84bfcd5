"""How the entries of a tensor are distributed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import FloatArray, Sample, Wish
from onnxpress.calibration.observers.minmax import MinMax
from onnxpress.calibration.observers.spacing import Spacing, channel_of
from onnxpress.rewriter.errors import ConfigError

BINS = 2048
ENTRIES = 65536

_LEAST = -1000
"""Exponent of the narrowest bins: 2 to this power and its inverse are ordinary numbers."""


class Histogram:
    """Counts of the entries of a tensor in equal bins, per tensor or per channel.

    Bin k holds k·2^e ≤ x < (k + 1)·2^e. The exponent e is the least at which all that was seen, from the exact minimum
    to the exact maximum, fits into the bins: between half of them and all are in use. When the range grows, e grows
    and pairs of bins are merged, 2^e being a multiple of the width before. So the counts depend on nothing but the
    entries, not on their order, nor on how parts were merged.

    The minimum and the maximum are those of all entries. Counted are at most `entries` of each batch, every step-th
    one, each for as many as the step, and the two extremes of the batch, which a step would often miss. NaN and
    infinities are left out, and counted in `ignored`.

    Attributes:
        axis: the channel axis, negative ones from the end; None for the whole tensor.
        bins: number of bins of a channel.
        entries: counted of each batch at most.
        counts: entries in each bin, int64 [channels, bins], a single channel for the whole tensor; [0, bins] at first.
        exponent: e of each channel, int64 [channels].
        start: index k of the first bin of each channel, int64 [channels].
    """

    kind: ClassVar[str] = "histogram"

    def __init__(self, *, axis: int | None = None, bins: int = BINS, entries: int = ENTRIES) -> None:
        """Start with nothing seen.

        Raises:
            ConfigError: less than two bins, or less than one entry.
        """
        if bins < 2:
            raise ConfigError(f"{bins} bins show no distribution; give 2 or more")
        self.axis, self.bins, self.entries = axis, bins, entries
        self.counts = np.zeros((0, bins), np.int64)
        self.exponent = np.zeros(0, np.int64)
        self.start = np.zeros(0, np.int64)
        self._spacing = Spacing(entries)
        self._range = MinMax(axis=axis)
        self._held: FloatArray = np.zeros((2, 0))  # the range that the bins were last made to hold

    @property
    def low(self) -> FloatArray:
        """Smallest finite entry, float64 [] or [channels]; inf where none was seen."""
        return self._range.low

    @property
    def high(self) -> FloatArray:
        """Largest finite entry, likewise; −inf where none was seen."""
        return self._range.high

    @property
    def ignored(self) -> int:
        """Number of entries that were NaN or infinite."""
        return self._range.ignored

    @property
    def empty(self) -> bool:
        """Whether some channel, or the tensor, has shown no finite entry yet."""
        return self._range.empty

    def profile(self, channel: int = 0) -> tuple[Array, FloatArray]:
        """The bins from the exact minimum to the exact maximum.

        Returns:
            Counts, int64 [n], and the edges between them, float64 [n + 1], the outer ones the minimum and the maximum.

        Raises:
            ConfigError: the channel has shown no finite entry.
        """
        low, high = (float(each.reshape(-1)[channel]) for each in (self.low, self.high))
        if not low <= high:
            raise ConfigError("nothing finite was seen, so there is no histogram; give samples")
        width = math.ldexp(1.0, int(self.exponent[channel]))
        used = math.floor(high / width) - int(self.start[channel]) + 1
        edges: FloatArray = (np.arange(used + 1, dtype=np.float64) + float(self.start[channel])) * width
        edges[0], edges[-1] = low, high
        return self.counts[channel, :used], edges

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept.

        Raises:
            ConfigError: the tensor lacks the axis, or its number of channels changed.
        """
        seen = MinMax(axis=self.axis)
        seen.update(array)
        step = self._spacing.step(array.shape)
        self._see(seen, array.reshape(-1)[::step], array.shape, step)

    def reductions(self, rank: int | None, /) -> Sequence[Wish]:
        """Smallest and largest entry, and a sample."""
        extremes = self._range.reductions(rank)
        return (*extremes, Sample(self.entries)) if extremes else ()

    def update_reduced(self, values: Sequence[Array], /) -> None:
        """Look at the smallest and the largest entries of one batch, and at a sample of it."""
        low, high, shape, step, sample = values
        seen = MinMax(axis=self.axis)
        seen.update_reduced((low, high))
        self._see(seen, sample, tuple(shape.tolist()), int(step[0]))

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw of the same tensor.

        Raises:
            ConfigError: it has another axis, other bins, or another number of channels.
        """
        if self.bins != other.bins:
            raise ConfigError(f"a histogram of {self.bins} bins cannot take in one of {other.bins}")
        self._range.merge(other._range)
        self._widen()
        for channel in range(len(other.counts)):
            self._add(channel, other.counts[channel], int(other.start[channel]), int(other.exponent[channel]))

    def state(self) -> dict[str, Array]:
        """Everything needed to go on later; `from_state` takes it."""
        own = {"counts": self.counts, "exponent": self.exponent, "start": self.start, "entries": np.array(self.entries)}
        return {**self._range.state(), **own}

    @classmethod
    def from_state(cls, state: Mapping[str, Array], /) -> Self:
        """Go on from a `state`.

        Raises:
            ValueError: its parts do not fit together.
        """
        seen = MinMax.from_state(state)
        observer = cls(axis=seen.axis, bins=state["counts"].shape[1], entries=int(state["entries"]))
        observer._range = seen
        observer.counts = state["counts"].astype(np.int64)
        observer.exponent, observer.start = state["exponent"].astype(np.int64), state["start"].astype(np.int64)
        if (
            observer.counts.ndim != 2
            or not observer.exponent.shape == observer.start.shape == observer.counts.shape[:1]
        ):
            raise ValueError("counts, exponents and starts do not fit together")
        observer._held = np.full((2, len(observer.counts)), np.nan)
        return observer

    def _widen(self) -> None:
        """Let the bins reach from the minimum to the maximum."""
        low, high = self.low.reshape(-1), self.high.reshape(-1)
        if len(self.counts) != low.size:  # nothing was counted yet
            self.counts = np.zeros((low.size, self.bins), np.int64)
            self.exponent, self.start = np.full(low.size, _LEAST), np.zeros(low.size, np.int64)
            self._held = np.full((2, low.size), np.nan)
        changed = (self._held != (low, high)).any(axis=0) & (low <= high)
        self._held = np.stack((low, high))
        for channel in np.flatnonzero(changed).tolist():
            exponent = _exponent(float(low[channel]), float(high[channel]), self.bins)
            start = math.floor(math.ldexp(low[channel], -exponent))
            old = int(self.start[channel]), int(self.exponent[channel])
            if (start, exponent) != old:
                counts = self.counts[channel].copy()
                self.counts[channel] = 0
                self.start[channel], self.exponent[channel] = start, exponent
                self._add(channel, counts, *old)

    def _add(self, channel: int, counts: Array, start: int, exponent: int) -> None:
        """Add counts of bins that are as wide as ours or narrower."""
        filled = np.flatnonzero(counts)
        index = (filled + start >> int(self.exponent[channel]) - exponent) - self.start[channel]
        np.add.at(self.counts[channel], index, counts[filled])

    def _see(self, seen: MinMax, sample: Array, shape: Sequence[int], step: int) -> None:
        """Look at the extremes of one batch and at a sample of it."""
        self._range.merge(seen)
        self._widen()
        channel = None
        if self.axis is not None:
            there = sample.size > 0
            channel = channel_of(shape, self.axis, step=step, count=sample.size) if there else np.zeros(0, np.int64)
        self._count(sample, channel, step)
        if step > 1:
            for extreme in (seen.low.reshape(-1), seen.high.reshape(-1)):
                self._count(extreme, None if self.axis is None else np.arange(extreme.size), 1)

    def _count(self, sample: Array, channel: Array | None, weight: int) -> None:
        """Count the finite entries of a sample, each for `weight` of them."""
        wide = sample.astype(np.float64)
        if not (finite := np.isfinite(wide)).all():
            wide, channel = wide[finite], channel if channel is None else channel[finite]
        exponent, start = (each[0 if channel is None else channel] for each in (self.exponent, self.start))
        wide *= np.ldexp(1.0, -exponent)
        np.floor(wide, out=wide)
        wide -= start  # whole numbers below 2^53, so this is exact
        index = wide.astype(np.int64)
        if channel is not None:
            index += channel * self.bins
        self.counts += weight * np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)


def _exponent(low: float, high: float, bins: int) -> int:
    """The least e at which bins of width 2^e hold [low, high]; at least so great that their indices are exact."""
    # Each bound only grows with the range, so bins are merged, never split. Halved: a sum might be beyond float64.
    reach, span = max(abs(low), abs(high)), high / 2 - low / 2
    bounds = [math.frexp(reach)[1] - 50] * (reach > 0) + [math.frexp(span)[1] - bins.bit_length()] * (span > 0)
    exponent = max([_LEAST, *bounds])
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= bins:
        exponent += 1
    return exponent
