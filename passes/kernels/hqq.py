"""Half-quadratic quantization (Badri & Shaji, 2023): better scales and zero points without any samples.

The error of few large entries is worth less than that of many small ones, ‖W − Ŵ‖ₚᵖ with p < 1. It is split by an
auxiliary error e: e = shrink(W − Ŵ), and then Ŵ is fitted to W − e by least squares. Unlike in the paper zero points
are codes, since that is what ONNX can store, so the scale is fitted as well; narrower spans are tried first, for turns
of the two steps do not find them; and what they find is kept where the squared error of a block gets less. (Kept by the
error with p = 1 instead, MiniLM lost 0.1 to 0.7 dB at its output.)
"""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.affine import Floats, Grid
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.blocks import Steps, chunks, code_chunk, decode_chunk, spread_blocks, sum_blocks

NORM = 0.7
"""p."""
_WEIGHT = 2.5
"""Of the quadratic part, in units of steps: at it an error of half a step, which rounding makes, is just no outlier."""
_GROWTH = 1.05
_ROUNDS = 10
_SPANS = (0.92, 0.84, 0.76, 0.66, 0.55, 0.42, 0.3)
"""Parts of the span of all weights in a block that are tried first."""
_WORTH = 5e-4
"""Part by which a round must lessen the error for another one to follow."""


def half_quadratic_steps(rows: Array, start: Steps, grid: Grid, *, norm: float = NORM, rounds: int = _ROUNDS) -> Steps:
    """Steps whose squared error is in no block larger than that of `start`.

    Args:
        rows: [rows, k], any float dtype, finite.
        start: where to begin; without zero points none are found either.
        grid: the codes.
        norm: p, above 0.
        rounds: of alternating between error and steps.
    """
    made = [_chunk(rows[part].astype(np.float32), start.part(part), grid, norm, rounds) for part in chunks(rows.shape)]
    scale = np.concatenate([each.scale for each in made])
    zeros = [each.zero for each in made if each.zero is not None]
    return Steps(scale, np.concatenate(zeros) if zeros else None, start.block)


def block_errors(rows: Floats, steps: Steps, grid: Grid) -> Array:
    """Σ(w − ŵ)² of each block, float64 [rows, blocks]."""
    lost = rows - decode_chunk(code_chunk(rows, steps, grid), steps)
    return sum_blocks(np.square(lost), steps.block).astype(np.float64)


def _chunk(rows: Floats, start: Steps, grid: Grid, norm: float, rounds: int) -> Steps:
    best, weight = start, _WEIGHT
    least = block_errors(rows, best, grid)
    for part in _SPANS:  # turns alone rarely leave the span where they began
        steps = _narrowed(start, part, grid)
        now = block_errors(rows, steps, grid)
        best, least = _pick(now < least, steps, best), np.minimum(now, least)
    steps = best
    for _ in range(rounds):
        steps = _improve(rows, steps, grid, norm, weight)
        now = block_errors(rows, steps, grid)
        before, best, least = least.sum(), _pick(now < least, steps, best), np.minimum(now, least)
        if least.sum() >= before * (1 - _WORTH):
            break
        weight *= _GROWTH
    return best


def _narrowed(steps: Steps, part: float, grid: Grid) -> Steps:
    """Steps that span a part of what they did, about the same middle; the rest saturates."""
    if steps.zero is None:
        return Steps(steps.scale * np.float32(part), None, steps.block)
    middle = (grid.low + grid.high) / 2
    zero = np.clip(np.rint(middle + (steps.zero - middle) / part), grid.low, grid.high)
    return Steps(steps.scale * np.float32(part), zero.astype(np.int8), steps.block)


def _improve(rows: Floats, steps: Steps, grid: Grid, norm: float, weight: float) -> Steps:
    """One round: codes, their error shrunk, then zero point and scale by least squares."""
    block, length = steps.block, rows.shape[1]
    codes = code_chunk(rows, steps, grid)
    width: Floats = np.abs(spread_blocks(steps.scale, block, length))
    error: Floats = (rows - decode_chunk(codes, steps)) / width
    target = rows - width * _shrink(error, norm, weight)
    zero, shift = steps.zero, codes
    if zero is not None:
        count = sum_blocks(np.ones_like(rows[:1]), block)
        middle = sum_blocks(codes - target / spread_blocks(steps.scale, block, length), block) / count
        zero = np.clip(np.rint(middle), grid.low, grid.high).astype(np.int8)
        shift = codes - spread_blocks(zero.astype(np.float32), block, length)
    above, below = sum_blocks(target * shift, block), sum_blocks(shift * shift, block)
    fitted = np.divide(above, below, out=steps.scale.copy(), where=below > 0)
    usable = np.abs(fitted) >= np.finfo(np.float32).tiny
    return Steps(np.where(usable, fitted, steps.scale).astype(np.float32), zero, block)


def _shrink(error: Floats, norm: float, weight: float) -> Floats:
    """sign(x) · max(|x| − |x|ᵖ⁻¹ / weight, 0): what of an error, in steps, is taken for an outlier's."""
    size = np.abs(error)
    kept = size - np.power(np.maximum(size, 1e-6), norm - 1) / weight
    return np.asarray(np.sign(error) * np.maximum(kept, 0), np.float32)


def _pick(first: Array, one: Steps, other: Steps) -> Steps:
    """Block by block one or the other."""
    zero = None if one.zero is None or other.zero is None else np.where(first, one.zero, other.zero)
    return Steps(np.where(first, one.scale, other.scale), zero, one.block)
