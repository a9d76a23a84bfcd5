"""What there is to cluster: values in ascending order, the mass of each, and sums over any stretch of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array, ascending, pieces
from onnxpress.passes.kernels.intervals import Ints, running
from onnxpress.passes.kernels.packing import distinct

SORTED = 1 << 21
"""Up to so many values are sorted; more are gathered into bins of 20 bits, each 2^-11 of its value wide."""

FEW = 4096
"""Up to so many distinct values are told apart, however many there are in all."""

_BLOCK = 128
_SHORT = 1 << 14
_ALIKE = 0.9  # of values that differ: from there on, to look for equal ones costs more than it saves

Floats: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Points:
    """Values in ascending order, and the mass of each.

    Attributes:
        value: [points], distinct where they have masses.
        mass: [points]; None where each counts one, and equal values may stand side by side.
    """

    value: Floats
    mass: Float64Array | None

    @property
    def masses(self) -> Float64Array:
        """The mass of each, [points]."""
        return np.ones(self.value.size) if self.mass is None else self.mass

    @property
    def moment(self) -> Floats:
        """Mass times value, [points]."""
        return self.value if self.mass is None else self.mass * self.value

    def held(self, edges: Ints) -> Float64Array:
        """The mass from each edge to the next, the last of which is the end, [edges − 1]."""
        if self.mass is None:
            return np.diff(edges).astype(np.float64)
        return np.asarray(np.add.reduceat(self.mass, edges[:-1]))

    def moved(self, edges: Ints) -> Float64Array:
        """The moment, the same way."""
        return np.asarray(np.add.reduceat(self.moment, edges[:-1], dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Sums:
    """Running sums of terms; of many terms stored for whole blocks only, since most are never asked for.

    Attributes:
        terms: [terms].
        before: before each block, and in all, [blocks + 1].
        block: terms in each.
    """

    terms: Floats
    before: Float64Array
    block: int

    @classmethod
    def of(cls, terms: Floats) -> Sums:
        """Sum the blocks."""
        if terms.size <= _SHORT:
            return cls(terms, running(terms), 1)
        return cls(terms, running(np.add.reduceat(terms, np.arange(0, terms.size, _BLOCK), dtype=np.float64)), _BLOCK)

    def at(self, places: Ints) -> Float64Array:
        """The sum of the first terms, as many as each place says; of the shape of `places`."""
        if self.block == 1:
            return np.asarray(self.before[places])
        block, left = np.divmod(places[..., None], self.block)
        within = np.arange(self.block)
        terms = self.terms[np.minimum(block * self.block + within, self.terms.size - 1)]
        part = np.where(within < left, terms, 0).sum(axis=-1, dtype=np.float64)
        return np.asarray(self.before[block[..., 0]] + part)


def points_of(values: Array, *, weights: Array | None = None, keep_zero: bool = False) -> Points:
    """Distinct values and their masses: exact up to `SORTED` values or `FEW` distinct ones, else the means of bins.

    Args:
        values: any shape and float dtype, finite.
        weights: importance of each value, same shape; None counts all alike.
        keep_zero: zeros must have a point of their own.

    Returns:
        Float64 values.
    """
    if values.size <= SORTED:
        return distinct_points(values, weights=weights)
    trace = 0.0 if weights is None else _trace(weights)
    few = distinct(values, FEW)
    if few is not None:
        return _counted_points(ascending(few.astype(np.float64)), values, weights, trace)
    # bins are fine around zero: there must they lie that zero may stay, else around the mean
    centre = 0.0 if keep_zero else total(values) / values.size
    return _binned_points(centre, values, weights, trace)


def distinct_points(values: Array, *, weights: Array | None = None) -> Points:
    """Distinct values and their masses, exactly, however many values there are.

    Args:
        values: any shape and float dtype, finite.
        weights: importance of each value, same shape; None counts all alike.

    Returns:
        Float64 values.
    """
    flat = values.reshape(-1).astype(kind_of(values), copy=False)
    if weights is None:
        return _merged(np.sort(flat), None)
    order = np.argsort(flat)
    return _merged(flat[order], weights.reshape(-1)[order].astype(np.float64) + _trace(weights))


def ordered_points(values: Array, *, weights: Array | None = None, keep_zero: bool = False) -> Points:
    """The same; where hardly any values are equal and all count alike, they are only sorted, many times as fast.

    Args:
        values: any shape and float dtype, finite.
        weights: importance of each value, same shape; None counts all alike.
        keep_zero: zeros must have a point of their own.
    """
    if weights is not None or not FEW < values.size <= SORTED:
        return points_of(values, weights=weights, keep_zero=keep_zero)
    ordered = np.sort(values.reshape(-1).astype(kind_of(values), copy=False))
    if np.count_nonzero(ordered[1:] != ordered[:-1]) > _ALIKE * ordered.size:
        return Points(ordered, None)
    return _merged(ordered, None)


def check_values(values: Array, weights: Array | None, *, to: str) -> None:
    """Refuse what cannot be made points.

    Args:
        values: any shape and float dtype.
        weights: importance of each; None where all count alike.
        to: what is to be done with them, for the error.

    Raises:
        ValueError: no values, one that is not finite, or unfit weights.
    """
    if values.size == 0:
        raise ValueError(f"no values to {to} in shape {values.shape}")
    if not all(np.isfinite(piece).all() for piece in pieces(values)):
        raise ValueError(f"cannot {to} values that are not finite")
    if weights is None:
        return
    if weights.shape != values.shape:
        raise ValueError(f"weights of shape {weights.shape} do not fit values of shape {values.shape}")
    if any(bool(np.less(piece, 0).any()) for piece in pieces(weights)) or not 0 < total(weights) < np.inf:
        raise ValueError("weights must be finite, not negative and not all zero")


def total(array: Array) -> float:
    """The sum of all elements, in float64."""
    return sum(float(piece.astype(np.float64).sum()) for piece in pieces(array))


def kind_of(values: Array) -> type[np.floating]:
    """The dtype in which values are clustered: float32 holds all narrower ones exactly."""
    return np.float64 if values.dtype == np.float64 else np.float32


def _trace(weights: Array) -> float:
    """A trace of mass everywhere: a value of no weight still has a place, and no sum of masses is zero."""
    return 1e-9 * sum(float(np.sum(part, dtype=np.float64)) for part in pieces(weights)) / weights.size


def _merged(ordered: Floats, mass: Float64Array | None) -> Points:
    """Equal values taken together."""
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    together = np.diff(first, append=ordered.size).astype(np.float64) if mass is None else np.add.reduceat(mass, first)
    return Points(ordered[first].astype(np.float64), together)


def _counted_points(few: Float64Array, values: Array, weights: Array | None, trace: float) -> Points:
    mass = np.zeros(few.size)
    for piece, weight in _masses(values, weights, trace):
        mass += np.bincount(np.searchsorted(few, piece), weight, minlength=few.size)
    return Points(few, mass)


def _binned_points(centre: float, values: Array, weights: Array | None, trace: float) -> Points:
    """Means of the values whose distance to `centre` agrees, as float32, in sign, exponent and 11 mantissa bits."""
    bins = 1 << 20
    mass, moment = np.zeros(bins), np.zeros(bins)
    for piece, weight in _masses(values, weights, trace):
        offset = piece - centre + 0.0  # -0.0 becomes 0.0 and shares its bin
        with np.errstate(over="ignore"):
            bits = offset.astype(np.float32).view(np.int32)
        # negative floats are stored as magnitudes: inverting them makes the bits ascend with the value
        key = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> 12) + bins // 2
        mass += np.bincount(key, weight, minlength=bins)
        moment += np.bincount(key, offset if weight is None else offset * weight, minlength=bins)
    used = mass > 0
    value = moment[used] / mass[used]
    value[np.abs(value) < np.finfo(np.float32).tiny] = 0  # the bin of zero is exactly zero
    return Points(value + centre, mass[used])


def _masses(values: Array, weights: Array | None, trace: float) -> Iterator[tuple[Float64Array, Float64Array | None]]:
    if weights is None:
        yield from ((piece.astype(np.float64), None) for piece in pieces(values))
        return
    for piece, weight in zip(pieces(values), pieces(weights), strict=True):
        yield piece.astype(np.float64), weight.astype(np.float64) + trace
