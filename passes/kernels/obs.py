"""Zeroing weights of a linear layer while the others make up for them.

All here minimise tr((W − W')·M·(W − W')ᵀ), the squared error of the layer's outputs, over weights W' that are zero
outside of a mask, and over the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array, Mask

Select: TypeAlias = Callable[[Array, float], Mask]
"""Which weights stay: from scores [out, columns], not negative, and the fraction that goes."""

_MOST_DAMPING = 1e3

_START = 0.03
"""First penalty of `alternate`, as a part of the diagonal: smaller ones leave the mask more time to settle."""

_ROUNDS = 300


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """A pruned weight.

    Attributes:
        weight: [out, k], zero where the mask is False.
        mask: which weights stay, [out, k].
    """

    weight: Array
    mask: Mask


def surgeon(
    weight: Array, moment: Array, select: Select, *, sparsity: float, width: int = 128, damping: float = 0.01
) -> Sparse:
    """Zero weights column by column, each time changing the columns behind so that they make up for it best.

    Hassibi and Stork, "Optimal Brain Surgeon" (1993), in the order of columns as Frantar and Alistarh, "SparseGPT"
    (2023), have it: with M⁻¹ = RᵀR, R upper triangular, zeroing w_j costs w_j² / R_jj², and the columns behind lose
    w_j·R_ji / R_jj. The mask is chosen for some columns at a time, from weights that make up for all before.

    Args:
        weight: W, [out, k], finite; group g of a grouped layer owns an equal share of the rows.
        moment: M, [groups, k, k].
        select: chooses the mask of a stretch of columns.
        sparsity: fraction that goes.
        width: columns of a stretch.
        damping: added to the diagonal of M, as a part of its mean; more where M has no inverse otherwise.

    Raises:
        ValueError: shapes that do not fit, or a moment that is not finite or has no inverse.
    """
    parts = _parts(weight, moment)
    groups, rows, k = parts.shape
    factor = np.stack([_inverse_factor(each, damping) for each in moment])
    found, mask = parts.copy(), np.ones(parts.shape, np.bool_)
    for start in range(0, k, width):
        stop = min(k, start + width)
        own = np.einsum("gkk->gk", factor)[:, np.newaxis, start:stop]
        scores = np.square(found[:, :, start:stop] / own).reshape(groups * rows, stop - start)
        gone = round(sparsity * weight.shape[0] * stop) - round(sparsity * weight.shape[0] * start)
        kept = select(scores, gone / scores.size).reshape(groups, rows, stop - start)
        lost = np.zeros(kept.shape)
        for column in range(start, stop):
            here = column - start
            lost[:, :, here] = np.where(kept[:, :, here], 0, found[:, :, column]) / factor[:, column, column, None]
            found[:, :, column:stop] -= lost[:, :, here, None] * factor[:, None, column, column:stop]
        found[:, :, stop:] -= lost @ factor[:, start:stop, stop:]
        mask[:, :, start:stop] = kept
    mask = mask.reshape(weight.shape)
    return Sparse(np.where(mask, found.reshape(weight.shape), 0), mask)


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The moment of a layer's inputs, scaled to a diagonal of ones, along its own axes; float32.

    Attributes:
        scale: root of the diagonal, [groups, 1, k].
        values: eigenvalues, [groups, 1, k].
        basis: eigenvectors in columns, [groups, k, k].
    """

    scale: NDArray[np.float32]
    values: NDArray[np.float32]
    basis: NDArray[np.float32]

    @classmethod
    def of(cls, moment: Array, *, damping: float = 1e-3) -> Axes:
        """Find the axes, in k³ operations.

        Args:
            moment: M = Σ x·xᵀ, [groups, k, k].
            damping: added to the diagonal, as a part of its mean, so that inputs that are never seen count a little.

        Raises:
            ValueError: values that are not finite, or no square matrices.
        """
        if moment.ndim != 3 or moment.shape[1] != moment.shape[2]:
            raise ValueError(f"moments are [groups, k, k], got {list(moment.shape)}")
        if not np.isfinite(moment).all():
            raise ValueError("moments are not finite")
        square = np.maximum(np.einsum("gkk->gk", moment), 0).astype(np.float64)
        extra = damping * square.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.where(square + extra > 0, square + extra, 1))
        found = [_eigen(_scaled(*each)) for each in zip(moment, scale, extra, strict=True)]
        values = np.stack([each for each, _ in found])
        basis = found[0][1][np.newaxis] if len(found) == 1 else np.stack([each for _, each in found])
        return cls(scale[:, np.newaxis].astype(np.float32), np.maximum(values, 0)[:, np.newaxis], basis)

    def damped(self, damping: float) -> Axes:
        """Those of M + damping·diag(M), which are the same."""
        return Axes(self.scale, self.values + np.float32(damping), self.basis)

    def solve(self, right: Array) -> Float64Array:
        """Right·M⁻¹.

        Args:
            right: [groups, rows, k].

        Returns:
            [groups, rows, k].
        """
        least = np.float32(1e-6) * self.values.max(axis=2, keepdims=True)
        along = ((right / self.scale).astype(np.float32) @ self.basis) / np.maximum(self.values, least)
        return np.asarray((along @ self.basis.transpose(0, 2, 1)) / self.scale, np.float64)


def alternate(weight: Array, axes: Axes, select: Select, *, sparsity: float, pace: int = 3) -> Sparse:
    """Find mask and weights together, by the alternating direction method of multipliers.

    Dense weights that are near to sparse ones, and sparse weights that are near to dense ones, are computed in turns,
    under a penalty on their distance that grows as the mask settles: Meng et al., "ALPS: Improved Optimization for
    Highly Sparse One-Shot Pruning for Large Language Models" (2024). A round is two products of matrices. With inputs
    scaled to a diagonal of ones, all weights are compared at once.

    Args:
        weight: W, [out, k], finite; group g of a grouped layer owns an equal share of the rows.
        axes: of the moment M, damped, for which tr((W − W')·M·(W − W')ᵀ) is to be small.
        select: chooses the mask.
        sparsity: fraction that goes.
        pace: rounds with one penalty: with more of them the mask is better.

    Returns:
        The mask is what counts: the weights are near to the best for it, and `least_squares.solve` gives these.

    Raises:
        ValueError: shapes that do not fit, or weights that are not finite.
    """
    parts = _parts(weight, axes.basis)
    wanted = (parts * axes.scale).astype(np.float32)
    pull = (wanted @ axes.basis) * axes.values
    sparse, prices = wanted, np.zeros_like(wanted)
    penalty = np.float32(_START * float(axes.values.mean()) or 1.0)
    mask = before = np.ones(weight.shape, np.bool_)
    for turn in range(1, _ROUNDS + 1):
        along = (pull + (penalty * sparse - prices) @ axes.basis) / (axes.values + penalty)
        dense = along @ axes.basis.transpose(0, 2, 1)
        shifted = dense + prices / penalty
        mask = select(np.square(shifted.reshape(weight.shape)), sparsity)
        sparse = np.where(mask.reshape(parts.shape), shifted, np.float32(0))
        prices = prices + penalty * (dense - sparse)
        if turn % pace == 0:
            moved = int(np.count_nonzero(mask ^ before)) / max(1, int(np.count_nonzero(mask)))
            if not moved:
                break
            penalty *= np.float32(1.3 if moved > 0.1 else 1.2 if moved > 0.005 else 1.1)
            before = mask
    return Sparse((sparse / axes.scale).reshape(weight.shape).astype(np.float64), mask)


def _parts(weight: Array, moment: Array) -> Float64Array:
    """The weight as [groups, rows of a group, k], float64.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    groups = moment.shape[0] if moment.ndim == 3 else 0
    if weight.ndim != 2 or not groups or moment.shape[1:] != 2 * weight.shape[1:] or weight.shape[0] % groups:
        raise ValueError(f"moments {list(moment.shape)} do not fit a weight {list(weight.shape)}")
    wide = weight.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(moment).all()):
        raise ValueError("weights or moments are not finite")
    return wide.reshape(groups, -1, weight.shape[1])


def _scaled(moment: Array, scale: Array, extra: Array) -> NDArray[np.float32]:
    """A moment [k, k] over scale and scale [k], with something added to its diagonal before."""
    scaled = moment / scale
    scaled /= scale[:, np.newaxis]
    np.einsum("kk->k", scaled)[:] += extra / np.square(scale)
    return scaled.astype(np.float32)


def _eigen(scaled: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Eigenvalues, and eigenvectors in columns, in the place of the matrix, which is used up.

    Raises:
        ValueError: they cannot be found.
    """
    from scipy.linalg import lapack

    # LAPACK's order of axes is the other one, and the matrix is symmetric: nothing is copied.
    values, basis, failed = lapack.ssyevd(scaled.T, compute_v=1, lower=1, overwrite_a=1)
    if failed:
        raise ValueError("the second moment has no axes: give other samples")
    return values, basis


def _inverse_factor(moment: Array, damping: float) -> Float64Array:
    """Upper triangular R, RᵀR = (M + damping)⁻¹; inputs that are always zero count as the mean one.

    Raises:
        ValueError: M has negative directions.
    """
    from scipy.linalg import lapack

    given = np.einsum("kk->k", moment).astype(np.float64)
    mean = float(given.mean()) if given.any() else 1.0
    while damping <= _MOST_DAMPING:
        square = moment.astype(np.float64)
        np.einsum("kk->k", square)[:] = np.where(given > 0, given, mean) + damping * mean
        try:
            lower = np.linalg.cholesky(square)
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-6)
            continue
        inverse, _ = lapack.dpotri(lower, lower=1)
        whole = np.tril(inverse) + np.tril(inverse, -1).T
        return np.asarray(np.linalg.cholesky(whole).T, np.float64)
    raise ValueError("the second moment is not one: it has negative directions")
