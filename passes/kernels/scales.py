"""Scales of symmetric codes at which the squared error is least, rather than those at which nothing saturates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxpress.passes.kernels.affine import Floats, Grid, symmetric_scale
from onnxpress.passes.kernels.arrays import Array

_SHRINK = np.linspace(1, 0.3, 22, dtype=np.float32)[1:]
"""Scales tried, as parts of the one at which nothing saturates."""

_ALTERNATIONS = 4
_GAIN = np.float32(1 - 1e-5)  # less may be rounding
_PIECE = 1 << 18  # entries that fit into the second cache


def mse_scale(weight: Array, grid: Grid, *, importance: Array | None = None, block: int | None = None) -> Floats:
    """Scales s > 0 that make Σ h·(w − s·q)², q = saturate(round(w / s)), small in every row or block.

    Scales from that of the largest magnitude down to 0.3 of it are tried. The best is improved by turns: given the
    codes, s = Σ h·w·q / Σ h·q² is the best scale, and the error sinks in every turn. So the error is never above that
    of the largest magnitude's scale. Saturating the few largest weights for the sake of all others is due to Banner et
    al., "Post training 4-bit quantization of convolutional networks" (2019); weighing by the second moments of the
    inputs to Choukroun et al. (2019) and OBQ (Frantar and Alistarh, 2022).

    Args:
        weight: [out, k], finite.
        grid: signed codes.
        importance: h, not negative: [k], such as the mean square of each input, or [out, k]; None for 1.
        block: columns that share a scale, the last block may be shorter; None for whole rows.

    Returns:
        float32 [out], or [out, blocks] where `block` is given. A row or block of zeros has scale 1.

    Raises:
        ValueError: a weight or an importance is not finite, or an importance negative.
    """
    out, width = weight.shape
    size = block or max(1, width)
    blocks = -(-width // size) if block else 1
    if importance is not None and not (np.isfinite(importance).all() and (np.asarray(importance) >= 0).all()):
        raise ValueError("importances must be finite and not negative")
    scale = np.ones((out, blocks), np.float32)
    for part in _row_parts(out, blocks * size):
        rows = _blocks(weight[part], blocks, size)
        ratio = None
        if importance is not None:
            ratio = _blocks(np.broadcast_to(importance, weight.shape)[part], blocks, size)
        scale[part] = _search(rows, ratio, grid).reshape(-1, blocks)
    return scale if block else scale[:, 0]


def _row_parts(out: int, width: int) -> Iterator[slice]:
    step = max(1, _PIECE // max(1, width))
    return (slice(start, start + step) for start in range(0, out, step))


def _blocks(rows: Array, blocks: int, size: int) -> Floats:
    """[out, k] as [out·blocks, size]; zeros fill the last block."""
    missing = blocks * size - rows.shape[1]
    wide = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return wide.astype(np.float32).reshape(-1, size)


def _search(rows: Floats, importance: Floats | None, grid: Grid) -> Floats:
    """The best scale of each row, [n]."""
    largest = symmetric_scale(np.abs(rows).max(axis=1, initial=0), grid)
    best, least = largest, _error(rows, largest, importance, grid)[0]
    for shrink in _SHRINK:
        best, least = _better(best, least, rows, largest * shrink, importance=importance, grid=grid)
    for _ in range(_ALTERNATIONS):
        _, codes = _error(rows, best, importance, grid)
        weighed = codes if importance is None else codes * importance
        below = np.einsum("ij,ij->i", weighed, codes)
        turned = np.divide(np.einsum("ij,ij->i", weighed, rows), below, out=best.copy(), where=below > 0)
        best, least = _better(best, least, rows, turned, importance=importance, grid=grid)
    return best


def _better(
    best: Floats, least: Floats, rows: Floats, scale: Floats, *, importance: Floats | None, grid: Grid
) -> tuple[Floats, Floats]:
    """The better of two scales of each row, and its error."""
    normal = np.maximum(scale, np.finfo(np.float32).tiny)
    error, _ = _error(rows, normal, importance, grid)
    taken = error < least * _GAIN
    return np.where(taken, normal, best), np.where(taken, error, least)


def _error(rows: Floats, scale: Floats, importance: Floats | None, grid: Grid) -> tuple[Floats, Floats]:
    """The weighed squared error of each row, and the codes, as float32."""
    with np.errstate(over="ignore"):  # infinities saturate
        codes = rows / scale[:, np.newaxis]
    np.rint(codes, out=codes)
    np.clip(codes, grid.low, grid.high, out=codes)
    lost = codes * scale[:, np.newaxis]
    np.subtract(rows, lost, out=lost)
    if importance is None:
        return np.einsum("ij,ij->i", lost, lost), codes
    return np.einsum("ij,ij,ij->i", lost, lost, importance), codes
