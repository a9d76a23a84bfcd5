"""Biases that take away the mean error which rounded weights bring into a layer's output."""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.kernels.arrays import Array


def bias_correction(weight_error: Array, mean: Array) -> Floats:
    """What to add to a bias: E[(W − Q)·x] = (W − Q)·E[x].

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).

    Args:
        weight_error: W − Q, [out, k]; group g of a grouped layer owns an equal share of the rows.
        mean: of the inputs, [groups, k], or [k] for one group.

    Returns:
        float32 [out].

    Raises:
        ValueError: shapes that do not fit.
    """
    rows = np.atleast_2d(np.asarray(mean, np.float64))
    if weight_error.ndim != 2 or rows.shape[1] != weight_error.shape[1] or weight_error.shape[0] % len(rows):
        raise ValueError(f"means of shape {list(mean.shape)} do not fit errors of shape {list(weight_error.shape)}")
    parts = weight_error.astype(np.float64).reshape(len(rows), -1, rows.shape[1])
    return np.asarray(np.einsum("gok,gk->go", parts, rows).reshape(-1), np.float32)


def central_moment(total: Array, total_of_rows: Array, count: int) -> Floats:
    """Σ (x − x̄)·(x − x̄)ᵀ: what is left of the output error where the bias takes away its mean.

    Args:
        total: Σ x·xᵀ, [groups, k, k].
        total_of_rows: Σ x, [groups, k].
        count: rows summed.

    Returns:
        float32 [groups, k, k], its diagonal not negative.

    Raises:
        ValueError: no rows.
    """
    if count < 1:
        raise ValueError("a moment of no rows has no centre")
    sums = np.asarray(total_of_rows, np.float64)
    central = np.empty(total.shape, np.float32)
    for group, row in enumerate(sums):
        central[group] = total[group] - np.outer(row, row) / count
    diagonal = np.einsum("gii->gi", central)
    np.maximum(diagonal, 0, out=diagonal)
    return central
