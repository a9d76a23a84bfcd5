"""How far one array is from another, and what that is in decibels."""

from __future__ import annotations

import math

import numpy as np

from onnxpress.passes.kernels.arrays import Array, pieces


def relative_error(original: Array, approximation: Array) -> float:
    """‖original − approximation‖ / ‖original‖ (Frobenius), summed in float64, piece by piece.

    Args:
        original: any shape and numeric dtype.
        approximation: the same shape; the dtype may differ.

    Returns:
        0.0 for equal arrays; inf where only `original` is all zeros.

    Raises:
        ValueError: the shapes differ.
    """
    if original.shape != approximation.shape:
        raise ValueError(f"shapes differ: {original.shape} and {approximation.shape}")
    lost = total = 0.0
    for left, right in zip(pieces(original), pieces(approximation), strict=True):
        wide = left.astype(np.float64)
        total += float(np.dot(wide, wide))
        wide -= right.astype(np.float64)
        lost += float(np.dot(wide, wide))
    if total == 0:
        return 0.0 if lost == 0 else math.inf
    return math.sqrt(lost / total)


def decibels(noise: float) -> float:
    """A relative noise Σ(y − y')² / Σy² as a ratio of signal to noise, in dB.

    Returns:
        inf without noise, −inf where it is infinite or no number.
    """
    if noise <= 0:
        return math.inf
    return -10 * math.log10(noise) if math.isfinite(noise) else -math.inf


def noise_at(sqnr: float) -> float:
    """The relative noise of a ratio of signal to noise in dB: the inverse of `decibels`."""
    return 10 ** (-sqnr / 10) if sqnr > -math.inf else math.inf
