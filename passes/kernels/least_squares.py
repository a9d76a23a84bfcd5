"""Weights of a linear layer, fitted by least squares to the outputs it should have.

With rows x of what the layer reads and y of what its product W·x should be, all that counts is in sums over the rows:
the normal equations. He et al., "Channel Pruning for Accelerating Very Deep Neural Networks" (2017), refit what reads
removed channels so; Hassibi and Stork, "Optimal Brain Surgeon" (1993), what is left of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array, Mask
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.supports import solve_dense, solve_supports

RIDGES: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
"""What the ridge is chosen from, as parts of the mean diagonal."""

_CONSTANT = 1e-6
"""Part of Σ x² below which the variance of an input is rounding: such an input is constant."""

_SAMPLED = 24
"""Rows of a masked weight by which the ridge is chosen: each row is a system of its own, so some tell for all."""

_ROWS = 256
"""Rows of a moment that are centred at once: no second one is made for it."""

_PATIENCE = 2
"""Ridges that may be worse than the best before smaller ones are no longer tried."""


def solve(
    normal: Normal,
    weight: Array,
    *,
    ridge: float,
    mask: Mask | None = None,
    bias: bool = False,
    overwrite: bool = False,
) -> tuple[Float64Array, Float64Array | None]:
    """The weight that gives the outputs best, drawn towards the one that is given.

    Minimises Σ ‖y − W·x − b‖² + λ·‖W − W₀‖² with λ = ridge · mean Σ x². With D = W − W₀ that is
    D·(M + λ·I) = C − W₀·M; where there is an intercept, M and C are those of centred rows. Inputs that are always zero,
    or always the same where an intercept stands for them, keep their weights. Where mask is False, weights are zero,
    and each output has a system of its own.

    Args:
        normal: the equations.
        weight: W₀, [out, k].
        ridge: not negative; with infinity the weight stays, and only an intercept is fitted.
        mask: which weights there are, [out, k]; None for all.
        bias: fit an intercept, too.
        overwrite: the moments of the equations may be used up, which saves a copy.

    Returns:
        W [out, k], and b [out], which is to be added to the bias; None without an intercept.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or no rows.
    """
    given, allowed = _checked(normal, weight, mask)
    if ridge < 0 or math.isnan(ridge):
        raise ValueError(f"ridge {ridge} is negative")
    groups, rows, k = normal.cross.shape
    start = given.reshape(groups, rows, k)
    found = start.copy()
    if math.isfinite(ridge):
        for group in range(groups):
            chosen = None if allowed is None else allowed[group * rows : (group + 1) * rows]
            moment, cross, square = _centred(normal, group, bias=bias, overwrite=overwrite)
            found[group] += _step(moment, cross - start[group] @ moment, square, ridge=ridge, mask=chosen)
    intercept = (normal.output_sum - np.einsum("grk,gk->gr", found, normal.input_sum)) / normal.count if bias else None
    return found.reshape(groups * rows, k), None if intercept is None else intercept.reshape(-1)


def error(normal: Normal, weight: Array, bias: Array | None = None) -> float:
    """‖Y − W·X − b‖ / ‖Y‖ over all outputs.

    Args:
        normal: the equations.
        weight: [out, k].
        bias: what an intercept adds, [out]; None for nothing.

    Returns:
        0.0 where all is zero; infinity where only the outputs are.

    Raises:
        ValueError: shapes that do not fit, or no rows.
    """
    given, _ = _checked(normal, weight, None)
    lost, whole = float(_squares(normal, given, bias).sum()), float(normal.energy.sum())
    if not whole:
        return 0.0 if lost <= 0 else math.inf
    return math.sqrt(max(0.0, lost) / whole)


@dataclass(frozen=True, slots=True)
class Choice:
    """A ridge, and how far the outputs were off on held-out rows.

    Attributes:
        ridge: the best; infinite where it is best to leave weight and bias as they are.
        before: relative error with the given weight.
        after: with the ridge; `before` where it is infinite.
    """

    ridge: float
    before: float
    after: float


def choose_ridge(
    fit: Normal,
    held_out: Normal,
    weight: Array,
    *,
    ridges: Sequence[float] = RIDGES,
    mask: Mask | None = None,
    bias: bool = False,
) -> Choice:
    """The ridge whose weight, fitted on some rows, is best on others.

    Ridges are tried from the largest on, until smaller ones only get worse. Where outputs have masks of their own, a
    sample of the outputs decides.

    Args:
        fit: equations of the rows to fit.
        held_out: of the rows to judge by.
        weight: as given, [out, k].
        ridges: to choose from, besides leaving all as it is.
        mask: which weights there are, [out, k]; None for all.
        bias: fit an intercept, too.

    Raises:
        ValueError: as `solve`, or other shapes on either side.
    """
    if fit.cross.shape != held_out.cross.shape:
        raise ValueError(f"rows held out are of shape {held_out.cross.shape}, those to fit of {fit.cross.shape}")
    if mask is not None:
        fit, held_out, weight, mask = _sampled(fit, held_out, weight, mask)
    before = error(held_out, weight)
    best, waited = Choice(math.inf, before, before), 0
    for ridge in sorted(ridges, reverse=True):
        after = error(held_out, *solve(fit, weight, ridge=ridge, mask=mask, bias=bias))
        if after < best.after:
            best, waited = Choice(ridge, before, after), 0
        else:
            waited += 1
        if waited >= _PATIENCE:
            break
    return best


def _checked(normal: Normal, weight: Array, mask: Mask | None) -> tuple[Float64Array, Mask | None]:
    """Weight in float64 and mask, both fitting the equations."""
    for what, array in (("weights", weight), ("a mask", mask)):
        if array is not None and array.shape != normal.shape:
            raise ValueError(f"{what} of shape {list(array.shape)} do not fit equations for {list(normal.shape)}")
    if not normal.count:
        raise ValueError("there are no rows to fit")
    wide = weight.astype(np.float64)
    if mask is not None:
        wide[~mask] = 0
    # The energies see every output, the diagonal every input: where these are finite, all products are.
    square = np.einsum("gkk->gk", normal.moment)
    if not (np.isfinite(wide).all() and np.isfinite(square).all() and np.isfinite(normal.energy).all()):
        raise ValueError("weights or rows are not finite")
    return wide, mask


def _centred(
    normal: Normal, group: int, *, bias: bool, overwrite: bool
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """The moment [k, k] and the products [rows, k] of one group, centred where there is an intercept, and Σ x² [k]."""
    moment, cross = normal.moment[group], normal.cross[group]
    square = np.einsum("kk->k", moment).copy()
    if bias:
        total = normal.input_sum[group]
        moment = moment if overwrite else moment.copy()
        for row in range(0, len(moment), _ROWS):
            moment[row : row + _ROWS] -= np.outer(total[row : row + _ROWS], total) / normal.count
        cross = cross - np.outer(normal.output_sum[group], total) / normal.count
    return moment, cross, square


def _step(
    moment: Float64Array, gradient: Float64Array, square: Float64Array, *, ridge: float, mask: Mask | None
) -> Float64Array:
    """D = W − W₀ of one group, [rows, k]."""
    spread = np.einsum("kk->k", moment)
    alive = (spread > _CONSTANT * square) & (square > 0)
    step = np.zeros_like(gradient)
    if not alive.any():
        return step
    damping = ridge * float(spread[alive].mean())
    if mask is not None:
        return solve_supports(moment, gradient, mask & alive, damping=damping)
    if alive.all():
        return solve_dense(moment, gradient, damping=damping)
    step[:, alive] = solve_dense(moment[np.ix_(alive, alive)], gradient[:, alive], damping=damping)
    return step


def _squares(normal: Normal, weight: Float64Array, bias: Array | None) -> Float64Array:
    """Σ (y − W·x − b)² of every output, [groups, rows]."""
    parts = weight.reshape(normal.cross.shape)
    lost: Float64Array = normal.energy + np.einsum("grk,grk->gr", parts @ normal.moment - 2 * normal.cross, parts)
    if bias is not None:
        shift = np.asarray(bias, np.float64).reshape(normal.energy.shape)
        short = normal.output_sum - np.einsum("grk,gk->gr", parts, normal.input_sum)
        lost += shift * (normal.count * shift - 2 * short)
    return lost


def _sampled(fit: Normal, held_out: Normal, weight: Array, mask: Mask) -> tuple[Normal, Normal, Array, Mask]:
    """Some outputs of every group, evenly spread."""
    groups, rows, k = fit.cross.shape
    count = max(1, _SAMPLED // groups)
    if rows <= count:
        return fit, held_out, weight, mask
    chosen = np.linspace(0, rows - 1, count).astype(np.int64)
    some_weight, some_mask = (each.reshape(groups, rows, k)[:, chosen].reshape(-1, k) for each in (weight, mask))
    return fit.outputs(chosen), held_out.outputs(chosen), some_weight, some_mask
