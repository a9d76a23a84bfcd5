"""Codes of few bits with a scale, and perhaps a zero point, for each block of a row: w ≈ (code − zero) · scale.

Rows are the outputs of a layer, [rows, k]; a block is a stretch of `block` entries of one row, the last one of a row
perhaps shorter. Rounding is to the nearest, ties to even, and the division in float32, as in `affine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats, Grid, affine_scale, symmetric_scale
from onnxpress.passes.kernels.arrays import PIECE, Array

Codes8 = NDArray[np.int8]

_TINY = float(np.finfo(np.float32).tiny)
_HALF = np.finfo(np.float16)


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the codes of a matrix [rows, k] lie.

    Attributes:
        scale: float32 [rows, blocks], not zero; a negative one turns the codes around.
        zero: the code of 0.0, int8 [rows, blocks]; None where all are 0.
        block: entries of a row that share a scale.
    """

    scale: Floats
    zero: Codes8 | None
    block: int

    def part(self, rows: slice) -> Steps:
        """The steps of some rows."""
        return Steps(self.scale[rows], None if self.zero is None else self.zero[rows], self.block)

    @property
    def is_short(self) -> bool:
        """Whether float16 holds every scale exactly, and as a normal number."""
        size = np.abs(self.scale)
        if not ((size >= float(_HALF.tiny)) & (size <= float(_HALF.max))).all():
            return False
        return bool((self.scale.astype(np.float16) == self.scale).all())

    def shortened(self) -> Steps:
        """Scales rounded to float16, unless one of them lies outside of its normal numbers."""
        size = np.abs(self.scale)
        if not ((size >= float(_HALF.tiny)) & (size < float(_HALF.max))).all():
            return self
        return Steps(self.scale.astype(np.float16).astype(np.float32), self.zero, self.block)


def code_grid(bits: int) -> Grid:
    """All signed codes of 2 to 8 bits."""
    return Grid(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, np.dtype(np.int8))


def block_count(length: int, block: int) -> int:
    """Blocks in a row."""
    return -(-length // block)


def nearest_steps(rows: Array, *, block: int, grid: Grid, symmetric: bool) -> Steps:
    """The steps of rounding to nearest: the codes span what a block holds.

    With zero points, they span [min(w, 0), max(w, 0)]. Without, the entry of the largest magnitude gets either the
    lowest code, at a scale of either sign, or the highest code: whichever leaves the block the smaller squared error.

    Args:
        rows: [rows, k], k ≥ 1, any float dtype.
        block: entries that share a scale.
        grid: the codes.
        symmetric: no zero points.

    Raises:
        ValueError: an entry is NaN or infinite.
    """
    made = [_nearest(rows[part].astype(np.float32), block, grid, symmetric) for part in chunks(rows.shape)]
    scale = np.concatenate([each.scale for each in made])
    zeros = [each.zero for each in made if each.zero is not None]
    return Steps(scale, np.concatenate(zeros) if zeros else None, block)


def to_codes(rows: Array, steps: Steps, grid: Grid) -> Codes8:
    """saturate(round(w / scale) + zero), int8 [rows, k].

    Raises:
        ValueError: an entry is NaN.
    """
    codes = np.empty(rows.shape, np.int8)
    for part in chunks(rows.shape):
        codes[part] = code_chunk(rows[part].astype(np.float32), steps.part(part), grid)
    return codes


def from_codes(codes: Codes8, steps: Steps) -> Floats:
    """(code − zero) · scale, float32 [rows, k]."""
    values = np.empty(codes.shape, np.float32)
    for part in chunks(codes.shape):
        values[part] = decode_chunk(codes[part].astype(np.float32), steps.part(part))
    return values


def rounded(rows: Array, steps: Steps, grid: Grid) -> Floats:
    """What is left of rows after they were codes, float32 [rows, k]."""
    return from_codes(to_codes(rows, steps, grid), steps)


def chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of about one piece at a time."""
    height = max(1, PIECE // max(1, shape[1]))
    for start in range(0, shape[0], height):
        yield slice(start, start + height)


def code_chunk(rows: Floats, steps: Steps, grid: Grid) -> Floats:
    """As `to_codes`, of a piece at once, and the codes still in float32."""
    with np.errstate(over="ignore"):  # infinities saturate
        codes: Floats = np.rint(rows / spread_blocks(steps.scale, steps.block, rows.shape[1]))
    if np.isnan(codes).any():
        raise ValueError("cannot quantize a weight that is not a number")
    if steps.zero is not None:
        codes += spread_blocks(steps.zero.astype(np.float32), steps.block, rows.shape[1])
    return np.clip(codes, grid.low, grid.high, out=codes)


def decode_chunk(codes: Floats, steps: Steps) -> Floats:
    """As `from_codes`, of a piece at once, from codes in float32."""
    shift = codes
    if steps.zero is not None:
        shift = codes - spread_blocks(steps.zero.astype(np.float32), steps.block, codes.shape[1])
    return np.asarray(shift * spread_blocks(steps.scale, steps.block, codes.shape[1]), np.float32)


def spread_blocks(values: Array, block: int, length: int) -> Array:
    """A number for each block as one for each entry: [rows, blocks] -> [rows, length]."""
    if values.shape[1] == 1:
        return np.broadcast_to(values, (values.shape[0], length))
    return np.repeat(values, block, axis=1)[:, :length]


def sum_blocks(values: Array, block: int) -> Array:
    """Sums over blocks: [rows, k] -> [rows, blocks]."""
    return np.add.reduceat(values, np.arange(0, values.shape[1], block), axis=1)


def _nearest(rows: Floats, block: int, grid: Grid, symmetric: bool) -> Steps:
    starts = np.arange(0, rows.shape[1], block)
    low, high = np.minimum.reduceat(rows, starts, axis=1), np.maximum.reduceat(rows, starts, axis=1)
    if not symmetric:
        scale, zero = affine_scale(low, high, grid)
        return Steps(scale, zero.astype(np.int8), block)
    lowest = np.where(-low >= high, low, high).astype(np.float64) / grid.low
    size = np.maximum(np.abs(lowest), _TINY)
    reach = np.where(lowest == 0, 1.0, np.copysign(size, lowest)).astype(np.float32)
    one, other = Steps(reach, None, block), Steps(symmetric_scale(np.maximum(-low, high), grid), None, block)
    better = _lost(rows, other, grid) < _lost(rows, one, grid)
    return Steps(np.where(better, other.scale, one.scale), None, block)


def _lost(rows: Floats, steps: Steps, grid: Grid) -> Array:
    """Squared error of each block."""
    return sum_blocks(np.square(decode_chunk(code_chunk(rows, steps, grid), steps) - rows), steps.block)
