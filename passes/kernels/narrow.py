"""Float32 arrays in 16 bits: what fits, what is lost, and the conversion piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxpress.passes.kernels.arrays import Array, pieces


@dataclass(frozen=True, slots=True)
class Format:
    """A floating-point type of 16 bits.

    Attributes:
        name: as ONNX and NumPy call it.
        dtype: of arrays.
        digits: of the significand, the hidden one included.
        largest: the greatest finite number.
        normal: the least positive number with all its digits.
    """

    name: str
    dtype: np.dtype[Any]
    digits: int
    largest: float
    normal: float

    @property
    def rounding(self) -> float:
        """The greatest relative error of rounding a number that has all its digits, 2^−digits."""
        return 2.0**-self.digits


@dataclass(frozen=True, slots=True)
class Loss:
    """What an array loses in 16 bits.

    Attributes:
        size: number of entries.
        largest: the greatest finite magnitude.
        beyond: finite entries that become infinite.
        vanished: entries that become zero and were not.
        short: entries other than zero that are too small to keep all their digits.
        error: ‖w − w'‖ / ‖w‖ over the entries that stay finite; 0.0 where all are zero.
    """

    size: int
    largest: float
    beyond: int
    vanished: int
    short: int
    error: float


def narrow(array: Array, kind: Format, *, clip: bool = False) -> Array:
    """Round to 16 bits, ties to even.

    Args:
        array: of any shape, float32.
        kind: the format.
        clip: finite entries beyond the format's range become its greatest number instead of infinite.

    Returns:
        An array of the same shape in the format's dtype; NaN and infinities stay what they are.
    """
    if clip:
        array = np.where(np.isfinite(array), np.clip(array, -kind.largest, kind.largest), array)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(kind.dtype)


def narrowed(array: Array, kind: Format, *, clip: bool = False) -> Iterator[Array]:
    """The flat pieces of `narrow`, in C order."""
    return (narrow(piece, kind, clip=clip) for piece in pieces(array))


def loss(array: Array, kind: Format) -> Loss:
    """Survey what `narrow` does to an array, piece by piece, in float64."""
    beyond = vanished = short = 0
    largest = lost = total = 0.0
    for piece in pieces(array):
        finite = np.isfinite(piece)
        rounded = narrow(piece, kind).astype(np.float64)
        wide = np.where(finite, piece, 0).astype(np.float64)
        size = np.abs(wide)
        largest = max(largest, float(size.max(initial=0.0)))
        over = finite & ~np.isfinite(rounded)
        beyond += int(np.count_nonzero(over))
        vanished += int(np.count_nonzero((size > 0) & (rounded == 0)))
        short += int(np.count_nonzero((size > 0) & (size < kind.normal)))
        kept = finite & ~over
        error = wide[kept] - rounded[kept]
        lost += float(np.dot(error, error))
        total += float(np.dot(wide[kept], wide[kept]))
    return Loss(array.size, largest, beyond, vanished, short, math.sqrt(lost / total) if total else 0.0)
