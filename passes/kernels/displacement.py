"""Matrices of low displacement rank: sums of products of a circulant and a skew-circulant matrix.

Sindhwani, Sainath and Kumar, "Structured Transforms for Small-Footprint Deep Learning" (2015): with Z the cyclic shift
down, and Z₋ the same with a change of sign where it wraps, every W [n, n] is Σ C(g_k)·S(h_k) over r terms, where
r is the rank of Z·W − W·Z₋. A Toeplitz matrix has r ≤ 2; products and inverses of such matrices stay low.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array

_STEPS = 10
"""Conjugate gradients for one side before the other takes its turn."""

_ENOUGH = 1e-20
"""Part of the first gradient's square that is left where rounding rules."""

_LEAST_GAIN = 1e-3
"""Part of the error that a sweep must take away to be followed by another."""

_Linear = Callable[[Float64Array], Float64Array]


@dataclass(frozen=True, slots=True, eq=False)
class Displaced:
    """W = Σ C(circulant_k)·S(skew_k), cut to its first rows.

    Attributes:
        circulant: first columns g_k of circulant matrices, [r, n].
        skew: first columns h_k of skew-circulant matrices, [r, n].
        rows: of the matrix, at most n.
    """

    circulant: Float64Array
    skew: Float64Array
    rows: int

    def dense(self) -> Float64Array:
        """The matrix, [rows, n]."""
        whole: Float64Array = _circulant_times(self.circulant, _skew_matrices(self.skew)).sum(axis=0)
        return whole[: self.rows]


def displacement(matrix: Array) -> Float64Array:
    """Z·W − W·Z₋ of a square matrix."""
    wide = matrix.astype(np.float64)
    turned = np.roll(wide, -1, axis=1)
    turned[:, -1] *= -1
    return np.roll(wide, 1, axis=0) - turned


def fit(target: Array, rank: int, *, metric: Array | None = None, sweeps: int = 10) -> Displaced:
    """The matrix of a displacement rank for which tr((W − T)·H·(W − T)ᵀ) is small.

    It starts with the singular values of the target's displacement; then the circulant and the skew-circulant side are
    fitted in turn by conjugate gradients, for W is linear in each. The error never grows.

    Args:
        target: T, [rows, n] with rows ≤ n.
        rank: r, at most n.
        metric: H, [n, n], symmetric and not negative; None for the identity.
        sweeps: over both sides, at most, 1 or more.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    rows, size = target.shape
    if rows > size or not 1 <= rank <= size or (metric is not None and metric.shape != (size, size)):
        raise ValueError(f"rank {rank} and a metric do not belong to a matrix {list(target.shape)}")
    if not np.isfinite(target).all() or (metric is not None and not np.isfinite(metric).all()):
        raise ValueError("holds values that are not finite")
    wide = target.astype(np.float64)

    def lost(each: Displaced) -> float:
        off = each.dense() - wide
        return float(np.vdot(off if metric is None else off @ metric, off))

    def better(each: Displaced) -> Displaced:
        circulant = _descend(*_by_circulant(each.skew, rows), each.circulant, wide, metric)
        return Displaced(circulant, _descend(*_by_skew(circulant, rows), each.skew, wide, metric), rows)

    first = _start(wide, rank)
    none = Displaced(np.zeros_like(first.circulant), first.skew, rows)  # the start may be worse than nothing
    found = min(none, better(first), better(none), key=lost)
    before = lost(found)
    for _ in range(sweeps - 1):
        trial = better(found)
        after = lost(trial)
        if after < before:
            found = trial
        if before - after <= _LEAST_GAIN * after:
            break
        before = after
    return found


def _start(target: Float64Array, rank: int) -> Displaced:
    """Factors of the displacement that is nearest; rows that are cut off count as zero."""
    rows, size = target.shape
    square = np.vstack([target, np.zeros((size - rows, size))])
    left, values, right = np.linalg.svd(displacement(square), full_matrices=False)
    root = np.sqrt(values[:rank])
    # Z·W − W·Z₋ = Σ u·vᵀ has the solution ½ Σ C(u)·S(v backwards)
    return Displaced((left[:, :rank] * root).T / 2, (right[:rank] * root[:, np.newaxis])[:, ::-1].copy(), rows)


def _skew_matrices(columns: Float64Array) -> Float64Array:
    """Skew-circulant matrices of first columns [r, n]: [r, n, n]."""
    line = np.arange(columns.shape[1])
    places = line[:, np.newaxis] - line
    return np.asarray(columns[:, places % len(line)] * np.where(places < 0, -1.0, 1.0))


def _circulant_times(columns: Float64Array, matrices: Float64Array) -> Float64Array:
    """The circulant of each first column [r, n] times a matrix [r, n, m]."""
    spectra = np.fft.rfft(columns, axis=1)
    return np.fft.irfft(spectra[:, :, np.newaxis] * np.fft.rfft(matrices, axis=1), n=columns.shape[1], axis=1)


def _by_circulant(skew: Float64Array, rows: int) -> tuple[_Linear, _Linear]:
    """W as a function of the circulant side, and the transpose of that function."""
    size = skew.shape[1]
    spectra = np.fft.rfft(_skew_matrices(skew), axis=1)

    def forward(columns: Float64Array) -> Float64Array:
        parts = sum(
            each[:, np.newaxis] * mine for each, mine in zip(np.fft.rfft(columns, axis=1), spectra, strict=True)
        )
        return np.fft.irfft(parts, n=size, axis=0)[:rows]

    def back(matrix: Float64Array) -> Float64Array:
        wide = np.fft.rfft(_padded(matrix, size), axis=0)
        return np.fft.irfft([(mine.conj() * wide).sum(axis=1) for mine in spectra], n=size, axis=1)

    return forward, back


def _by_skew(circulant: Float64Array, rows: int) -> tuple[_Linear, _Linear]:
    """The same for the skew-circulant side: S(h) = D⁻¹·C(D·h)·D with D = diag(exp(iπt/n))."""
    size = circulant.shape[1]
    twist = np.exp(1j * np.pi * np.arange(size) / size)
    whole = _circulant_times(circulant, np.broadcast_to(np.eye(size), (len(circulant), size, size)))[:, :rows]
    spectra = np.fft.ifft(whole * twist.conj(), axis=2)

    def forward(columns: Float64Array) -> Float64Array:
        parts = sum(each * mine for each, mine in zip(np.fft.fft(columns * twist, axis=1), spectra, strict=True))
        return np.ascontiguousarray((np.fft.fft(parts, axis=1) * twist).real)

    def back(matrix: Float64Array) -> Float64Array:
        wide = size * np.fft.ifft(matrix * twist.conj(), axis=1)
        parts = np.stack([(mine.conj() * wide).sum(axis=0) for mine in spectra])
        return np.ascontiguousarray((size * np.fft.ifft(parts, axis=1) * twist.conj()).real)

    return forward, back


def _padded(matrix: Float64Array, size: int) -> Float64Array:
    return np.pad(matrix, [(0, size - len(matrix)), (0, 0)])


def _descend(
    forward: _Linear, back: _Linear, start: Float64Array, target: Float64Array, metric: Array | None
) -> Float64Array:
    """Conjugate gradients on the normal equations of tr((A·x − T)·H·(A·x − T)ᵀ), from where one is."""

    def seen(matrix: Float64Array) -> Float64Array:
        return matrix if metric is None else np.asarray(matrix @ metric)

    found = start.copy()
    residual = back(seen(target - forward(found)))
    direction, square = residual, float(np.vdot(residual, residual))
    enough = _ENOUGH * square
    for _ in range(_STEPS):
        ahead = forward(direction)
        curve = float(np.vdot(ahead, seen(ahead)))
        if not square > enough or not curve > 0:
            break
        found += square / curve * direction
        residual = residual - square / curve * back(seen(ahead))
        previous, square = square, float(np.vdot(residual, residual))
        direction = residual + square / previous * direction
    return found
