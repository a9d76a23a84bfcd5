"""Factors of a layer's weight that change its outputs least, in closed form.

With T the wanted weight and H the second moments of the rows that it multiplies, tr((W − T)·H·(W − T)ᵀ) is the squared
error of the outputs. Among all W of a rank it is least for U·Uᵀ·T, U the leading eigenvectors of T·H·Tᵀ: the singular
vectors of the weight times a root of H (Wang et al., "SVD-LLM", 2024; Zhang et al., 2016, for convolutions).
"""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import SVD, svd

_JITTER = 1e-12
"""Part of the mean diagonal that is added to every metric, so that what it does not see is told by the weight."""

_MOST_JITTER = 1e-3

_LEAST = 1e-18
"""Part of the largest value that each has at least, so that the factors of full rank give the weight back."""


def whitened_svd(target: Array, metric: Array | None) -> SVD:
    """The decomposition whose `split(rank)` are the factors of least output error.

    left·diag(values)·right is the target; columns of left are orthonormal, rows of right are so under the metric,
    right·H·rightᵀ = I. √(Σ values[rank:]²) is the error of a rank, √tr((W − T)·H·(W − T)ᵀ), so energy rules and curves
    need only the values.

    Args:
        target: T, [out, k], any float dtype, finite.
        metric: H, [k, k], symmetric, not negative; it may be singular. Its diagonal, [k], positive, where it is
            diagonal. None for the identity: the plain `svd`.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    if metric is None:
        return svd(target)
    if metric.ndim == 1:
        return _by_parts(target, metric)
    check_metric(target, metric)
    wide = target.astype(np.float64)
    spread = float(np.trace(metric)) / len(metric)
    if not spread > 0:  # nothing is ever read: every weight is as good, so the nearest
        found = svd(wide)
        return SVD(found.left, found.values * 0 + _LEAST, found.right * (found.values / _LEAST)[:, None])
    jitter = _JITTER * spread
    return _by_outputs(wide, metric, jitter) if len(wide) <= len(metric) else _by_inputs(wide, metric, jitter)


def rank_errors(values: Array) -> Float64Array:
    """The relative error that each rank leaves, [k + 1]: first that of rank 0, which is 1, last that of the full rank.

    Args:
        values: singular values of `svd` or `whitened_svd`, [k].
    """
    squares = np.square(values.astype(np.float64))
    left = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
    return np.sqrt(left / left[0]) if left[0] > 0 else np.zeros(left.shape)


def check_metric(target: Array, metric: Array | None) -> None:
    """Refuse what is no weight [out, k] with second moments [k, k].

    Raises:
        ValueError: other shapes, or values that are not finite.
    """
    if target.ndim != 2 or target.size == 0:
        raise ValueError(f"expected a matrix that is not empty, got shape {target.shape}")
    if not np.isfinite(target).all():
        raise ValueError("cannot factorize a matrix that is not finite")
    if metric is None:
        return
    if metric.shape != (target.shape[1], target.shape[1]):
        raise ValueError(f"a weight {list(target.shape)} has no metric of shape {list(metric.shape)}")
    if not np.isfinite(metric).all():
        raise ValueError("the metric is not finite")


def _by_parts(target: Array, diagonal: Array) -> SVD:
    """Inputs that have nothing to do with each other: singular vectors of the scaled weight."""
    if target.ndim != 2 or diagonal.shape != (target.shape[1],):
        raise ValueError(f"a weight {list(target.shape)} has no diagonal of shape {list(diagonal.shape)}")
    if not (np.isfinite(diagonal).all() and (diagonal > 0).all()):
        raise ValueError("the diagonal of the metric is not positive, or not finite")
    root = np.sqrt(diagonal.astype(np.float64))
    found = svd(target.astype(np.float64) * root)
    return SVD(found.left, found.values, found.right / root)


def _by_outputs(target: Float64Array, metric: Array, jitter: float) -> SVD:
    """Not more outputs than inputs: the eigenvectors of T·H·Tᵀ, without a root or an inverse of the metric."""
    gram = (target @ metric) @ target.T + jitter * (target @ target.T)
    left = np.ascontiguousarray(np.linalg.eigh(gram).eigenvectors[:, ::-1])
    right = left.T @ target
    squares = np.einsum("rk,rk->r", right @ metric, right) + jitter * np.einsum("rk,rk->r", right, right)
    return _ordered(left, squares, right)


def _by_inputs(target: Float64Array, metric: Array, jitter: float) -> SVD:
    """More outputs than inputs: singular vectors of T·C with C·Cᵀ the metric."""
    from scipy.linalg import solve_triangular

    root = _root(metric, jitter)
    found = svd(target @ root)
    right = solve_triangular(root, found.right.T, lower=True, trans="T").T
    return SVD(found.left, found.values, right)


def _root(metric: Array, jitter: float) -> Float64Array:
    """C, lower triangular, of C·Cᵀ = H, with as much on its diagonal as it takes."""
    while True:
        damped = metric.astype(np.float64)
        damped[np.diag_indices_from(damped)] += jitter
        try:
            return np.asarray(np.linalg.cholesky(damped), np.float64)
        except np.linalg.LinAlgError as error:
            if jitter > _MOST_JITTER * float(np.trace(metric)) / len(metric):
                raise ValueError("the metric has negative eigenvalues") from error
            jitter *= 10


def _ordered(left: Float64Array, squares: Float64Array, right: Float64Array) -> SVD:
    """With values in descending order, and rows of `right` divided by them."""
    values = np.sqrt(np.maximum(squares, 0))
    values = np.maximum(values, _LEAST * float(values.max(initial=0.0)))
    order = np.argsort(-values, kind="stable")
    values = values[order]
    scaled = np.divide(right[order], values[:, None], out=np.zeros_like(right), where=values[:, None] > 0)
    return SVD(left[:, order], values, scaled)
