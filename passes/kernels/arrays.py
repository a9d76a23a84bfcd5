"""Arrays as the kernels see them: any numeric dtype, possibly a memory map, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Bits: TypeAlias = NDArray[np.unsignedinteger[Any]]
Codes: TypeAlias = NDArray[np.unsignedinteger[Any]]
Float64Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

PIECE = 1 << 20
"""Elements held at once by what works piece by piece: 8 MB in float64."""


def pieces(array: Array, *, size: int = PIECE) -> Iterator[Array]:
    """Yield `array` in C order as flat pieces of at most `size` elements; views where it is contiguous."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, size):
        yield np.asarray(flat[start : start + size])


def magnitudes(piece: Array) -> Float64Array:
    """|piece| in float64, exact for every float dtype up to float64 and integers up to 53 bits."""
    wide = piece.astype(np.float64)
    return np.abs(wide, out=wide)


def ascending(array: Array) -> Array:
    """The distinct elements of a flat array in ascending order; 0.0 and -0.0 are one. None may be NaN.

    np.unique hashes integers, many times slower than to sort them, and of float16 it may give an element twice: NumPy
    2.4 sorts them wrongly on processors with AVX-512, where few are distinct and some are negative.
    """
    ordered = np.sort(array.astype(np.float32)).astype(array.dtype) if array.dtype == np.float16 else np.sort(array)
    return np.asarray(ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]) if ordered.size else ordered


def bits_of(piece: Array) -> Bits:
    """The stored bits of each element as unsigned integers: tells -0.0 from 0.0 and one NaN from another."""
    return np.ascontiguousarray(piece).view(np.dtype(f"u{piece.dtype.itemsize}"))


def smallest_unsigned(count: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned dtype that numbers `count` things from zero."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if count <= np.iinfo(dtype).max + 1:
            return np.dtype(dtype)
    return np.dtype(np.uint64)
