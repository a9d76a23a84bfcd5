"""Symmetric positive systems of equations: one matrix for all right sides, or for each the part that belongs to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array, Mask

_LEAST = 1e-10
"""Damping, as part of the mean diagonal, where none is wanted: what rounding takes from the smallest eigenvalues."""

_MOST = 1e3
"""Damping, as part of the mean diagonal, from which a matrix that has no factor is none of second moments."""

_ITERATIONS = 400
"""Of conjugate gradients, at most."""

_PRECISE = 1e-6
"""Part of the right side that conjugate gradients may leave in the end."""

_ROUGH = 1e-3
"""The same for one round in float32; what is left is summed in float64 and solved again."""

_DISTINCT = 1e-5
"""Damping of a matrix whose inverse is wanted in float32 only."""

_SMALL = 256
"""Size up to which parts are factored, however many there are."""

_EFFORT = 100.0
"""Work of conjugate gradients for a row, in k² multiplications of a factorisation; the inverse costs 2·k³ more."""

_GATHER = 200.0
"""Work of taking one entry of a part out of the matrix, in multiplications."""


def solve_dense(matrix: Array, right: Array, *, damping: float = 0.0) -> Float64Array:
    """X with X·(A + damping·I) = B, by Cholesky; more damping where A has no factor.

    Args:
        matrix: A, symmetric and not negative, [k, k].
        right: B, [rows, k].
        damping: added to the diagonal.

    Returns:
        X, [rows, k].

    Raises:
        ValueError: A has negative directions, or is not finite.
    """
    from scipy.linalg import lapack

    mean = float(np.trace(matrix)) / len(matrix)
    damping = max(damping, _LEAST * mean)
    most = max(_MOST * mean, damping)
    while 0 < damping <= most:
        damped = np.array(matrix, np.float64)
        damped[np.diag_indices_from(damped)] += damping
        # LAPACK's order of axes is the other one, and the matrix is symmetric: neither is copied.
        _, found, failed = lapack.dposv(damped.T, right.T, lower=1, overwrite_a=1)
        if not failed:
            return np.ascontiguousarray(found.T)
        damping = 10 * damping
    raise ValueError("the second moment is not one: it has negative directions, or is not finite")


def solve_supports(matrix: Array, right: Array, mask: Mask, *, damping: float = 0.0) -> Float64Array:
    """For each row the solution of the part of a system that belongs to its mask; zero elsewhere.

    Row r solves x_S·(A_SS + damping·I) = b_S for its support S. The parts are factored one by one where they are small;
    else conjugate gradients go on all rows at once, a product of matrices an iteration.

    Args:
        matrix: A, symmetric and not negative, [k, k].
        right: B, [rows, k].
        mask: the supports, [rows, k].
        damping: added to the diagonal.

    Returns:
        X, [rows, k].

    Raises:
        ValueError: A has negative directions, or is not finite.
    """
    _, first, kind = np.unique(np.packbits(mask, axis=1), axis=0, return_index=True, return_inverse=True)
    supports = mask[first]
    sizes = supports.sum(axis=1, dtype=np.float64)
    exact = float((sizes**3 / 3 + _GATHER * sizes**2).sum())
    if len(matrix) > _SMALL and exact > (_EFFORT * len(right) + 2 * len(matrix)) * float(len(matrix)) ** 2:
        return _descend(matrix, np.where(mask, right, 0), mask, damping=damping)
    found = np.zeros(right.shape)
    order = np.argsort(kind.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(kind.reshape(-1), minlength=len(first)))
    for support, rows in zip(supports, np.split(order, ends[:-1]), strict=True):
        columns = np.flatnonzero(support)
        if len(columns):
            part = np.ix_(rows, columns)
            found[part] = solve_dense(matrix.take(columns, 0).take(columns, 1), right[part], damping=damping)
    return found


def _descend(matrix: Array, right: Array, mask: Mask, *, damping: float) -> Float64Array:
    """Conjugate gradients on all rows: X with (X·(A + damping·I))∘mask = B∘mask, and X∘mask = X.

    Scaled to a diagonal of ones. The iterations are in float32, what they leave is in float64.
    """
    diagonal = np.einsum("kk->k", matrix).astype(np.float64)
    damping = max(damping, _LEAST * float(diagonal.mean()))
    scale = 1 / np.sqrt(np.maximum(diagonal, 0) + damping)
    scaled = matrix * scale
    scaled *= scale[:, np.newaxis]
    scaled[np.diag_indices_from(scaled)] += damping * scale**2
    narrow, near = scaled.astype(np.float32), _inverse(scaled)
    wanted = right * scale
    target = _PRECISE * np.linalg.norm(wanted, axis=1)
    found, left, budget = np.zeros(right.shape), wanted, _ITERATIONS
    while budget > 0:
        size = np.linalg.norm(left, axis=1)
        rows = np.flatnonzero(size > target)
        if not len(rows):
            break
        step, spent = _gradients(narrow, near, left[rows] / size[rows, np.newaxis], mask[rows], budget)
        found[rows] += step * size[rows, np.newaxis]
        budget -= spent
        left = np.where(mask, wanted - found @ scaled, 0)
    return np.asarray(found * scale, np.float64)


def _inverse(scaled: Float64Array) -> NDArray[np.float32]:
    """What brings rows near to a solution: the inverse for rows without zeros, damped to what float32 can tell.

    It halves the iterations that the scale alone would take, and more where inputs are nearly dependent.
    """
    found = solve_dense(scaled, np.eye(len(scaled)), damping=_DISTINCT).astype(np.float32)
    return (found + found.T) / np.float32(2)


def _gradients(
    matrix: NDArray[np.float32], near: NDArray[np.float32], right: Array, mask: Mask, budget: int
) -> tuple[Array, int]:
    """A rough solution for right sides of norm one, float32, and the iterations it took."""
    left = right.astype(np.float32)
    found, spent = np.zeros_like(left), 0
    towards = np.where(mask, left @ near, np.float32(0))
    along, slope = towards.copy(), np.einsum("rk,rk->r", left, towards)
    active = np.ones(len(left), np.bool_)
    while active.any() and spent < budget:
        spent += 1
        ahead = np.where(mask, along @ matrix, np.float32(0))
        curve = np.einsum("rk,rk->r", along, ahead)
        active &= (curve > 0) & (slope > 0)
        stride = _ratio(slope, curve, active)
        found += stride * along
        left -= stride * ahead
        active &= np.einsum("rk,rk->r", left, left) > _ROUGH**2
        towards = np.where(mask, left @ near, np.float32(0))
        before, slope = slope, np.einsum("rk,rk->r", left, towards)
        along *= _ratio(slope, before, active)
        along += towards
    return found, spent


def _ratio(above: Array, below: Array, active: Mask) -> Array:
    """Of each row that is active, [rows, 1]; zero for the others."""
    return np.where(active, above / np.where(active, below, 1), 0)[:, np.newaxis].astype(np.float32)
