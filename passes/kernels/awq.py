"""Activation-aware weight quantization (Lin et al., 2023): inputs that are large get finer weights.

Each input channel k of a layer is divided by sₖ and its weights are multiplied by it, s = aᵅ with a the root of the
mean square of the channel (the paper takes the mean magnitude). α is searched by the error of the layer's output,
Σ‖(Ŵ − W)x‖² = tr(E·M·Eᵀ) with the second moment M = Σ x·xᵀ, so no samples are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.lattice import squared_errors

_STEPS = 20


@dataclass(frozen=True, slots=True)
class Scaled:
    """What the search found.

    Attributes:
        scale: s, float32 [k], positive; ones where nothing was better.
        alpha: the exponent, 0 where nothing was better.
        error: Σ‖(Ŵ − W)x‖² with it.
        plain: the same without it.
    """

    scale: Floats
    alpha: float
    error: float
    plain: float


def search_scale(rows: Array, moment: Array, round_rows: Callable[[Array], Array]) -> Scaled:
    """The scale of the inputs at which the output of a layer changes least.

    Args:
        rows: [rows, k], finite.
        moment: Σ x·xᵀ, [k, k].
        round_rows: gives back rows as their codes mean them.
    """
    wide = rows.astype(np.float32)
    ones = np.ones(rows.shape[1], np.float32)
    plain = _lost(round_rows(wide) - wide, moment)
    best = Scaled(ones, 0.0, plain, plain)
    for step in range(1, _STEPS):
        scale = input_scale(moment, alpha=step / _STEPS)
        error = _lost(round_rows(wide * scale) / scale - wide, moment)
        if error < best.error:
            best = Scaled(scale, step / _STEPS, error, plain)
    return best


def input_scale(moment: Array, *, alpha: float) -> Floats:
    """aᵅ over the geometric middle of its extremes, float32 [k].

    A channel that never carried anything counts as the smallest that did.

    Args:
        moment: Σ x·xᵀ, [k, k].
        alpha: from 0 to 1.
    """
    size = np.sqrt(np.maximum(np.diagonal(moment).astype(np.float64), 0))
    alive = size[size > 0]
    if not alive.size:
        return np.ones(len(size), np.float32)
    size = np.maximum(size, max(alive.min(), alive.max() * 1e-4)) ** alpha
    return np.asarray(size / np.sqrt(size.max() * size.min()), np.float32)


def _lost(error: Array, moment: Array) -> float:
    return float(squared_errors(error, moment).sum())
