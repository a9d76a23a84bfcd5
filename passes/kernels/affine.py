"""Affine quantization as ONNX defines it: code = saturate(round(x / scale) + zero), x ≈ (code − zero) · scale.

Rounding is to the nearest, ties to even, and the division in float32, as ONNX Runtime does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.signedinteger | np.unsignedinteger]

_TINY = float(np.finfo(np.float32).tiny)  # scales are normal numbers: x / scale stays finite and accurate
_BIAS_MOST = 2**30  # the other half of int32 is for the sum of products: of 33,000 with codes of 8 bits


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that codes may be.

    Attributes:
        low: the least.
        high: the greatest.
        dtype: what holds them.
    """

    low: int
    high: int
    dtype: np.dtype[np.signedinteger | np.unsignedinteger]


UINT8 = Grid(0, 255, np.dtype(np.uint8))
INT8 = Grid(-128, 127, np.dtype(np.int8))
INT8_SYMMETRIC = Grid(-127, 127, np.dtype(np.int8))
INT7_SYMMETRIC = Grid(-64, 64, np.dtype(np.int8))


def affine_scale(low: ArrayLike, high: ArrayLike, grid: Grid) -> tuple[Floats, Ints]:
    """Scale and zero point that spread [low, high], widened to hold zero, over the grid; zero is exact.

    A range of nothing but zero has scale 1.

    Args:
        low: the least value, per tensor [] or per channel [channels].
        high: the greatest, same shape.
        grid: the codes.

    Returns:
        Scale float32 and zero point of the grid's dtype, both of the shape of `low`.

    Raises:
        ValueError: a range that is not finite, or with low > high.
    """
    least, most = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(least).all() and np.isfinite(most).all() and (least <= most).all()):
        raise ValueError("a range to quantize must be finite, its low not above its high")
    least, most = np.minimum(least, 0), np.maximum(most, 0)
    scale = _positive((most - least) / (grid.high - grid.low))
    zero = np.clip(np.rint(grid.low - least / scale), grid.low, grid.high)
    return scale, zero.astype(grid.dtype)


def symmetric_scale(largest: ArrayLike, grid: Grid) -> Floats:
    """The scale, for zero point 0, at which the magnitude `largest` has the greatest code.

    A magnitude of zero has scale 1.

    Args:
        largest: of |x|, per tensor [] or per channel [channels].
        grid: signed codes.

    Raises:
        ValueError: a magnitude negative or not finite, or a grid without negative codes.
    """
    magnitude = np.asarray(largest, np.float64)
    if not (np.isfinite(magnitude).all() and (magnitude >= 0).all()):
        raise ValueError("a magnitude to quantize must be finite and not negative")
    if grid.low >= 0:
        raise ValueError("symmetric codes need a signed grid")
    return _positive(magnitude / min(grid.high, -grid.low))


def largest_magnitude(weight: Array, *, axis: int | None) -> Floats:
    """The largest |weight|, of everything [] or per slice of `axis` [channels]; 0 for nothing."""
    low, high = value_range(weight, axis=axis)
    return np.maximum(-low, high)


def value_range(weight: Array, *, axis: int | None) -> tuple[Floats, Floats]:
    """The least and the greatest value, widened to hold zero, of everything [] or per slice of `axis` [channels]."""
    rows = _rows(weight, axis)
    shape = () if axis is None else (weight.shape[axis],)
    low, high = rows.min(axis=(0, 2), initial=0), rows.max(axis=(0, 2), initial=0)
    return low.astype(np.float32).reshape(shape), high.astype(np.float32).reshape(shape)


def quantize(weight: Array, scale: Floats, zero_point: Ints | int = 0, *, grid: Grid, axis: int | None = None) -> Ints:
    """saturate(round(weight / scale) + zero_point), ties to even.

    Args:
        weight: any shape and float dtype, finite.
        scale: [] for `axis=None`, else [weight.shape[axis]]; positive.
        zero_point: like `scale`, or one number.
        grid: the codes; values beyond it saturate.
        axis: the channels'.

    Returns:
        Codes of the grid's dtype and the shape of `weight`.

    Raises:
        ValueError: `scale` has not one positive number per slice, or a weight is not a number.
    """
    rows, codes = _rows(weight, axis), np.empty(_rows_shape(weight.shape, axis), grid.dtype)
    step, origin = _steps(scale, rows.shape[1]), _per_row(zero_point, rows.shape[1])
    for part in _parts(rows.shape):
        with np.errstate(over="ignore"):  # infinities saturate
            wide = np.rint(rows[part].astype(np.float32) / step[part[1]])
        if np.isnan(wide).any():
            raise ValueError("cannot quantize a weight that is not a number")
        wide += origin[part[1]]
        codes[part] = np.clip(wide, grid.low, grid.high, out=wide)
    return codes.reshape(weight.shape)


def dequantize(codes: Ints, scale: Floats, zero_point: Ints | int = 0, *, axis: int | None = None) -> Floats:
    """(codes − zero_point) · scale in float32.

    Args:
        codes: any shape, integers.
        scale: [] for `axis=None`, else [codes.shape[axis]]; positive.
        zero_point: like `scale`, or one number.
        axis: the channels'.

    Raises:
        ValueError: `scale` has not one positive number per slice.
    """
    rows, values = _rows(codes, axis), np.empty(_rows_shape(codes.shape, axis), np.float32)
    step, origin = _steps(scale, rows.shape[1]), _per_row(zero_point, rows.shape[1])
    for part in _parts(rows.shape):
        values[part] = (rows[part].astype(np.float32) - origin[part[1]]) * step[part[1]]
    return values.reshape(codes.shape)


def scale_for_bias(weight_scale: Floats, *, input_scale: float, bias: Array) -> Floats:
    """Weight scales, widened where the bias would not fit int32 at scale input_scale · weight_scale.

    Args:
        weight_scale: [] or [out], positive.
        input_scale: positive.
        bias: [out].

    Returns:
        The shape of `weight_scale`; equal to it wherever the bias fits.
    """
    # 1e-6 above the least that fits, so that rounding to float32 cannot undo it
    least = np.maximum(np.abs(bias.astype(np.float64)) / _BIAS_MOST, _TINY) * (1 + 1e-6) / input_scale
    if weight_scale.ndim == 0:
        least = np.asarray(np.max(least, initial=0.0))
    return np.maximum(weight_scale, least).astype(np.float32)


def quantize_bias(bias: Array, *, input_scale: float, weight_scale: Floats) -> tuple[NDArray[np.int32], Floats]:
    """A bias as int32 at the scale of the products it is added to, input_scale · weight_scale.

    Args:
        bias: [out], any float dtype.
        input_scale: positive.
        weight_scale: [] or [out], positive.

    Returns:
        Codes [out], and their scale, float32, of the shape of `weight_scale`.

    Raises:
        ValueError: a bias does not fit; `scale_for_bias` gives weight scales at which it does.
    """
    scale = np.float32(input_scale) * weight_scale.astype(np.float32)
    if not (scale >= _TINY).all():
        raise ValueError("the scale of the bias underflows: widen the weight scale with scale_for_bias")
    codes = np.rint(bias.astype(np.float64) / scale)
    if not (np.abs(codes) <= _BIAS_MOST).all():
        raise ValueError("a bias does not fit int32: widen the weight scale with scale_for_bias")
    return codes.astype(np.int32), np.asarray(scale, np.float32)


def _positive(scale: NDArray[np.float64]) -> Floats:
    return np.asarray(np.where(scale == 0, 1.0, np.maximum(scale, _TINY)), np.float32)


def _rows_shape(shape: tuple[int, ...], axis: int | None) -> tuple[int, int, int]:
    """The shape as [before, channels, after]; one channel for all."""
    if axis is None:
        return (1, 1, int(np.prod(shape)))
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} does not exist in shape {shape}")
    axis %= len(shape)
    return (int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :])))


def _rows(array: Array, axis: int | None) -> Array:
    return array.reshape(_rows_shape(array.shape, axis))


def _steps(scale: Floats, channels: int) -> Floats:
    if not (np.asarray(scale) > 0).all():
        raise ValueError("scales must be positive")
    return _per_row(scale, channels)


def _per_row(value: ArrayLike, channels: int) -> Floats:
    """A number or one for each channel as float32 [channels, 1]."""
    wide = np.asarray(value, np.float32)
    if wide.size not in (1, channels):
        raise ValueError(f"expected 1 or {channels} values, one per channel, got shape {wide.shape}")
    return np.broadcast_to(wide.reshape(-1, 1), (channels, 1))


def _parts(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of [before, channels, after] of about one piece each."""
    before, channels, after = shape
    length = max(1, min(after, PIECE))
    width = max(1, min(channels, PIECE // length))
    height = max(1, PIECE // (length * width))
    for row in range(0, before, height):
        for channel in range(0, channels, width):
            for start in range(0, after, length):
                yield slice(row, row + height), slice(channel, channel + width), slice(start, start + length)
