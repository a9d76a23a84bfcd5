"""The nearest of a few values for each of many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes, Float64Array, Mask, pieces, smallest_unsigned
from onnxpress.passes.kernels.points import Floats, kind_of

_CACHED = 1 << 15  # elements of a piece that stays in the cache while much passes over it
_COMPARED = 24  # up to so many borders, to compare with each is fastest
_BINS = 1 << 13


def assign(values: Array, centroids: Floats) -> Codes:
    """The index of the nearest of ascending, distinct `centroids` for each value.

    Args:
        values: any shape and float dtype.
        centroids: [clusters], ascending.

    Returns:
        The shape of `values`, in the smallest unsigned dtype that numbers the centroids.
    """
    codes = np.zeros(values.shape, smallest_unsigned(centroids.size))
    kind = kind_of(values)
    borders = floor_to(kind, borders_of(centroids.astype(np.float64)))
    table = _Table.of(borders) if _COMPARED < borders.size < values.size else None
    for source, target in zip(pieces(values, size=_CACHED), pieces(codes, size=_CACHED), strict=True):
        plain = source.astype(kind, copy=False)
        if table is not None:
            table.number(plain, target)
        elif borders.size <= _COMPARED:
            for border in borders:
                np.add(target, plain > border, out=target)
        else:
            target[...] = np.searchsorted(borders, plain)
    return codes


def borders_of(centroids: Float64Array) -> Float64Array:
    """Middles of neighbours, always below the upper one, so that each centroid is nearest to itself."""
    middle = centroids[:-1] / 2 + centroids[1:] / 2
    return np.minimum(middle, np.nextafter(centroids[1:], -np.inf))


def floor_to(kind: type[np.floating], wide: Float64Array) -> Floats:
    """The largest number of the narrower dtype that is not above: x > border says the same of both."""
    narrow = wide.astype(kind)
    return np.where(narrow > wide, np.nextafter(narrow, kind(-np.inf)), narrow)


@dataclass(frozen=True, slots=True)
class _Table:
    """Bins of equal width, with the borders in each: most have one at most, so one comparison is left.

    The bin of a value is a function that never falls, so a border in a lower bin is below the value, whatever rounding
    does; the comparison itself is exact.

    Attributes:
        borders: ascending.
        scale: bins per unit.
        below: borders in lower bins, [bins].
        border: that in the bin, infinite where there is none, [bins].
        crowded: where there are several, [bins]; None if nowhere.
    """

    borders: Floats
    scale: np.floating
    below: Codes
    border: Floats
    crowded: Mask | None

    @classmethod
    def of(cls, borders: Floats) -> _Table | None:
        """None where the borders lie too near or too far apart for numbers to tell."""
        kind = borders.dtype.type
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale = kind((_BINS - 1) / (borders[-1] - borders[0]))
            top = (borders[-1] - borders[0]) * scale
        if not (np.isfinite(scale) and 0 < top < _BINS):
            return None
        bins = ((borders - borders[0]) * scale).astype(np.int32)
        count = np.bincount(bins, minlength=_BINS)
        border = np.full(_BINS, np.inf, kind)
        border[bins] = borders
        below = (np.cumsum(count) - count).astype(smallest_unsigned(borders.size + 1))
        return cls(borders, scale, below, border, count > 1 if count.max() > 1 else None)

    def number(self, plain: Floats, codes: Codes) -> None:
        """Write how many borders are below each value."""
        bins = ((np.clip(plain, self.borders[0], self.borders[-1]) - self.borders[0]) * self.scale).astype(np.int32)
        np.add(self.below[bins], plain > self.border[bins], out=codes)
        if self.crowded is not None:
            hard = self.crowded[bins]
            codes[hard] = np.searchsorted(self.borders, plain[hard])
