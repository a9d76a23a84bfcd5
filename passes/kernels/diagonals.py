"""Products of fixed matrices and diagonals: W = M₀·diag(d₁)·M₁·diag(d₂)·…·diag(d_m)·M_m.

Adaptive Fastfood (Yang et al., "Deep Fried Convnets", 2015) and ACDC (Moczulski et al., 2016) are such products, with
fast transforms between the diagonals. W is linear in each diagonal, so they are fitted in turn, each exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array

_JITTER = 1e-9
"""Part of the mean diagonal that keeps systems solvable where a product ignores an entry."""

_LEAST_GAIN = 1e-3
"""Part of the error that a sweep must take away to be followed by another."""

_Apply = Callable[[Float64Array], Float64Array]


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A fixed matrix M by what it does to rows.

    Attributes:
        times: X ↦ X·M.
        turned: X ↦ X·Mᵀ.
    """

    times: _Apply
    turned: _Apply

    @classmethod
    def cut(cls, wide: int, narrow: int) -> Map:
        """The first columns of the identity, [wide, narrow] with narrow ≤ wide."""
        return cls(lambda rows: rows[:, :narrow], lambda rows: np.pad(rows, [(0, 0), (0, wide - narrow)]))

    def reversed(self) -> Map:
        """The transpose."""
        return Map(self.turned, self.times)


def product(maps: Sequence[Map], diagonals: Sequence[Array], rows: int) -> Float64Array:
    """The matrix that fixed matrices and the diagonals between them make; one diagonal fewer than matrices.

    Args:
        maps: M₀ to M_m.
        diagonals: d₁ to d_m.
        rows: of M₀.
    """
    found = maps[0].times(np.eye(rows))
    for diagonal, each in zip(diagonals, maps[1:], strict=True):
        found = each.times(found * diagonal)
    return found


def fit(
    maps: Sequence[Map],
    start: Sequence[Array],
    target: Array,
    *,
    metric: Array | None = None,
    sweeps: int = 20,
) -> list[Float64Array]:
    """Diagonals for which tr((W − T)·H·(W − T)ᵀ) is small, and never more than at the start.

    With W = L·diag(d)·R, the best d solves ((LᵀL) ∘ (R·H·Rᵀ))·d = diag(Lᵀ·T·H·Rᵀ).

    Args:
        maps: M₀ [out, n], M₁ [n, n], …, M_m [n, in].
        start: d₁ to d_m, [n] each; where a product of them vanishes, nothing can come of it.
        target: T, [out, in].
        metric: H, [in, in], symmetric and not negative; None for the identity.
        sweeps: over all diagonals, at most.

    Raises:
        ValueError: a metric that does not fit, or values that are not finite.
    """
    channels = target.shape[1]
    if metric is not None and metric.shape != (channels, channels):
        raise ValueError(f"a metric {list(metric.shape)} does not belong to a matrix {list(target.shape)}")
    square = np.eye(channels) if metric is None else metric.astype(np.float64)
    wide = target.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(square).all()):
        raise ValueError("holds values that are not finite")
    seen = wide @ square
    whole, before = float(np.vdot(seen, wide)), np.inf
    found = [each.astype(np.float64) for each in start]
    for _ in range(sweeps):
        after = whole - _sweep(maps, found, seen, square)
        if before - after <= _LEAST_GAIN * max(after, 0.0):
            break
        before = after
    return found


def _sweep(maps: Sequence[Map], found: list[Float64Array], seen: Float64Array, square: Float64Array) -> float:
    """Replace each diagonal by the best; how much of the target's square the product then takes away."""
    behind = [(_both(square, maps[-1].reversed()), maps[-1].turned(seen))]  # R·H·Rᵀ and T·H·Rᵀ
    for each, diagonal in zip(reversed(maps[1:-1]), reversed(found[1:]), strict=True):
        moment, sides = behind[-1]
        scaled = moment * diagonal * diagonal[:, np.newaxis]
        behind.append((_both(scaled, each.reversed()), each.turned(sides * diagonal)))
    left = maps[0].times(np.eye(len(seen)))
    gram, gained = left.T @ left, 0.0
    for index, (moment, sides) in enumerate(reversed(behind)):
        found[index], gained = _better(gram * moment, np.einsum("oa,oa->a", left, sides), found[index])
        if index + 1 < len(found):
            between, diagonal = maps[index + 1], found[index]
            left = between.times(left * diagonal)
            gram = _both(gram * diagonal * diagonal[:, np.newaxis], between)
    return gained


def _both(square: Float64Array, each: Map) -> Float64Array:
    """Mᵀ·S·M of a symmetric S."""
    return each.times(np.ascontiguousarray(each.times(square).T))


def _better(system: Float64Array, side: Float64Array, old: Float64Array) -> tuple[Float64Array, float]:
    """The solution, or what was there if rounding makes that no better; and what it gains."""
    import scipy.linalg

    mean = float(np.trace(system)) / len(side)
    if not mean > 0:
        return old, 0.0
    damped = system.copy()
    damped[np.diag_indices(len(side))] += _JITTER * mean
    try:
        new: Float64Array = scipy.linalg.cho_solve(scipy.linalg.cho_factor(damped, overwrite_a=True), side)
    except np.linalg.LinAlgError:
        new = old
    gains = [float(2 * each @ side - each @ system @ each) for each in (old, new)]
    return (new, gains[1]) if gains[1] >= gains[0] else (old, gains[0])
