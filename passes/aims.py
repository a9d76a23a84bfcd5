"""What a layer's new weight is fitted to, of whatever form it is: its old one, or what the layer should give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.least_squares import choose_ridge, solve
from onnxpress.passes.kernels.normal import Normal

_DAMPING = 3e-2
"""Part of the mean diagonal that is added to second moments where the wanted weight is the one that is there.

Of 0.001, 0.003, 0.01, 0.03 and 0.1 it is best, or within 0.01 dB of that, on samples held out; MiniLM wants 0.1.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """Σ ‖y − W·x − b‖² + λ·‖W − W₀‖² is tr((W − T)·H·(W − T)ᵀ), apart from a constant.

    Attributes:
        target: T, [groups·rows, k], the dense weight for which it is least.
        metric: H, [groups, k, k]: second moments, centred where there is a bias, plus λ.
    """

    target: Float64Array
    metric: Float64Array

    @classmethod
    def of(cls, normal: Normal, rows: Array, ridge: float, *, bias: bool) -> Aim:
        """The aim of a layer with the weight `rows`.

        Args:
            normal: its equations.
            rows: W₀, [groups·rows, k].
            ridge: part of the mean diagonal that λ is; infinite for a layer whose target is its weight.
            bias: whether there is one to fit.

        Raises:
            ValueError: the equations cannot be solved.
        """
        metric = normal.moment.copy()
        if bias:
            metric -= np.einsum("gk,gl->gkl", normal.input_sum, normal.input_sum) / normal.count
        target = rows.astype(np.float64)
        if math.isfinite(ridge):
            target, _ = solve(normal, rows, ridge=ridge, bias=bias)
        square = np.einsum("gkk->gk", metric)
        damping = (ridge if math.isfinite(ridge) else _DAMPING) * square.mean(axis=1)
        metric += np.where(damping > 0, damping, 1.0)[:, np.newaxis, np.newaxis] * np.eye(metric.shape[1])
        return cls(target, metric)


def ridge_for(pair: Pair, rows: Array, *, bias: bool) -> float:
    """How much the wanted weight is drawn towards the one that is there, by samples held out; infinite for wholly."""
    return choose_ridge(pair.fit, pair.held_out, rows, bias=bias).ridge


def shift_for(normal: Normal, rows: Array, *, bias: bool) -> Float64Array | None:
    """What the bias gains by a new weight; None without one."""
    return solve(normal, rows, ridge=math.inf, bias=True)[1] if bias else None
