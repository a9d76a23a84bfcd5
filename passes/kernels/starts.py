"""Where alternating least squares start from: factors of each scheme, by singular vectors.

Each is the expression of `multilinear.dense` with factors for it. With a metric the channels of the input are weighed
by what it says of them alone, summed over the taps; `multilinear.fit` then sees to the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import spatial_matrix
from onnxpress.passes.kernels.tensor import cp, tucker2
from onnxpress.passes.kernels.whitened import check_metric, whitened_svd

_TAPS = "zyx"
"""Letters of the kernel's axes, the last ones where it has fewer."""

_JITTER = 1e-6
"""Part of the mean diagonal that is added to what a metric says of the channels."""

_CP_ITERATIONS = 50


@dataclass(frozen=True, slots=True)
class Start:
    """Factors and what they mean.

    Attributes:
        expression: for `multilinear.dense` and `multilinear.fit`.
        factors: float64, one for each operand, the one that writes the output first.
    """

    expression: str
    factors: tuple[Float64Array, ...]


def channel_start(kernel: Array, metric: Array | None, rank: int) -> Start:
    """Narrow k x k to `rank` channels, then 1x1: "or,riyx->oiyx", [out, r] and [r, in, *k]; the optimum.

    Args:
        kernel: [out, in, *k], any float dtype, finite; at most three kernel axes, so for all starts.
        metric: [in·taps, in·taps], or None; so for all starts.
        rank: 1..min(out, in·taps).

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or a rank out of range; so do all starts.
    """
    taps = _letters(kernel, metric)
    left, right = whitened_svd(kernel.reshape(len(kernel), -1), metric).split(rank)
    return Start(f"or,ri{taps}->oi{taps}", (left, right.reshape(rank, *kernel.shape[1:])))


def spatial_start(kernel: Array, metric: Array | None, rank: int) -> Start:
    """Columns k x 1 to `rank` channels, then 1 x k: "orx,riy->oiyx", [out, r, kw] and [r, in, kh].

    The optimum without a metric (Tai et al., 2016).

    Args:
        kernel: [out, in, kh, kw].
        metric: as for all.
        rank: 1..min(out·kw, in·kh).
    """
    _letters(kernel, metric)
    matrix = spatial_matrix(kernel)
    out, channels, height, width = kernel.shape
    seen = None
    if metric is not None:
        wide = metric.reshape(channels, height, width, channels, height, width)
        seen = np.einsum("iyxjzx->iyjz", wide).reshape(channels * height, -1)
    left, right = whitened_svd(matrix, seen).split(rank)
    last = left.reshape(out, width, rank).transpose(0, 2, 1)
    return Start("orx,riy->oiyx", (np.ascontiguousarray(last), right.reshape(rank, channels, height)))


def tucker_start(kernel: Array, metric: Array | None, ranks: tuple[int, int]) -> Start:
    """1x1, k x k, 1x1: "or,rsyx,si->oiyx", [out, r_out], [r_out, r_in, *k] and [r_in, in].

    Args:
        kernel: [out, in, *k].
        metric: as for all.
        ranks: (r_out, r_in), each from 1 to its number of channels.
    """
    taps = _letters(kernel, metric)
    scale = _Scale.of(kernel, metric)
    found = tucker2(scale.apply(kernel), ranks)
    return Start(f"or,rs{taps},si->oi{taps}", (found.last, found.core, scale.undo(found.first)))


def cp_start(kernel: Array, metric: Array | None, rank: int, *, seed: int = 0) -> Start:
    """1x1, depthwise k x k, 1x1: "or,ryx,ri->oiyx", [out, r], [r, *k] and [r, in].

    Args:
        kernel: [out, in, *k] with at least one kernel axis.
        metric: as for all.
        rank: terms, at least 1.
        seed: of what the start holds beyond singular vectors.

    Raises:
        DegenerateError: terms grow and cancel each other.
    """
    taps = _letters(kernel, metric, least=1)
    scale = _Scale.of(kernel, metric)
    flat = scale.apply(kernel).reshape(*kernel.shape[:2], -1)
    found = cp(flat, rank, seed=seed, iterations=_CP_ITERATIONS)
    filters = np.ascontiguousarray(found.spatial[0].T).reshape(rank, *kernel.shape[2:])
    return Start(f"or,r{taps},ri->oi{taps}", (found.last, filters, scale.undo(found.first)))


def train_limits(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The largest ranks of a tensor train, from the input on, for a kernel [out, in, *k]."""
    out, *rest = shape
    before = [math.prod(rest[: count + 1]) for count in range(len(rest))]
    return tuple(min(each, math.prod(rest) // each * out) for each in before)


def train_start(kernel: Array, metric: Array | None, ranks: tuple[int, ...]) -> Start:
    """A tensor train (Oseledets, 2011): 1x1, one layer for each kernel axis, 1x1.

    "or,rxq,qys,si->oiyx" for two axes: [out, r], [r, kw, q], [q, kh, s] and [s, in].

    Args:
        kernel: [out, in, *k] with at least one kernel axis.
        metric: as for all.
        ranks: one more than kernel axes, from the input on: (s, q, r); each at most what `train_limits` says, and what
            the rank before it allows.
    """
    taps = _letters(kernel, metric, least=1)
    limits = train_limits(kernel.shape)
    if len(ranks) != len(limits) or not all(1 <= each <= most for each, most in zip(ranks, limits, strict=True)):
        raise ValueError(f"the ranks of a train must lie in 1..{limits}, got {ranks}")
    scale = _Scale.of(kernel, metric)
    rest = np.moveaxis(scale.apply(kernel), 0, -1)  # [in, *k, out]
    bonds = f"s{'qp'[: len(taps) - 1]}r"
    factors: list[Float64Array] = []
    names: list[str] = []
    rank = 1
    for size, letter, bond, wanted in zip(kernel.shape[1:], f"i{taps}", bonds, ranks, strict=True):
        basis = _leading(rest.reshape(rank * size, -1), wanted)
        rest = basis.T @ rest.reshape(rank * size, -1)
        factors.append(basis.T if letter == "i" else basis.reshape(rank, size, -1).transpose(2, 1, 0))
        names.append("si" if letter == "i" else f"{bond}{letter}{names[-1][0]}")
        rank = basis.shape[1]
    factors[0] = scale.undo(factors[0])
    operands = ",".join(["or", *reversed(names)])
    return Start(f"{operands}->oi{taps}", (rest.T, *(np.ascontiguousarray(each) for each in reversed(factors))))


def separable_start(kernel: Array, metric: Array | None, terms: int) -> Start:
    """A sum of depthwise-separable convolutions: "ois,isyx->oiyx", [out, in, s] and [in, s, *k].

    In ONNX a Conv with group = in of in·s filters, then 1x1. The optimum without a metric.

    Args:
        kernel: [out, in, *k] with at least one kernel axis.
        metric: as for all.
        terms: 1..min(out, taps).
    """
    letters = _letters(kernel, metric, least=1)
    out, channels, *sides = kernel.shape
    taps = math.prod(sides)
    flat = kernel.reshape(out, channels, taps)
    pairs = []
    for channel in range(channels):
        own = slice(channel * taps, (channel + 1) * taps)
        pairs.append(whitened_svd(flat[:, channel], None if metric is None else metric[own, own]).split(terms))
    last, first = (np.stack(side, axis=axis) for side, axis in zip(zip(*pairs, strict=True), (1, 0), strict=True))
    return Start(f"ois,is{letters}->oi{letters}", (last, first.reshape(channels, terms, *sides)))


@dataclass(frozen=True, slots=True, eq=False)
class _Scale:
    """A root C of the metric of the channels, C·Cᵀ, summed over taps; None for the identity."""

    root: Float64Array | None

    @classmethod
    def of(cls, kernel: Array, metric: Array | None) -> _Scale:
        """That of a kernel [out, in, *k]."""
        if metric is None:
            return cls(None)
        channels, taps = kernel.shape[1], math.prod(kernel.shape[2:])
        seen = np.einsum("itjt->ij", metric.reshape(channels, taps, channels, taps)).astype(np.float64)
        mean = float(np.trace(seen)) / channels
        seen[np.diag_indices_from(seen)] += _JITTER * mean if mean > 0 else 1.0
        values, axes = np.linalg.eigh(seen)
        return cls(axes * np.sqrt(np.maximum(values, _JITTER * max(mean, 0.0))))

    def apply(self, kernel: Array) -> Float64Array:
        """The kernel in channels that count alike."""
        wide = kernel.astype(np.float64)
        return wide if self.root is None else np.moveaxis(np.tensordot(wide, self.root, axes=(1, 0)), -1, 1)

    def undo(self, first: Float64Array) -> Float64Array:
        """A factor [r, in] for the channels as they are."""
        return first if self.root is None else np.asarray(np.linalg.solve(self.root.T, first.T).T, np.float64)


def _leading(matrix: Float64Array, rank: int) -> Float64Array:
    """The `rank` leading left singular vectors, orthonormal whatever the matrix; all where there are not so many."""
    return np.ascontiguousarray(np.linalg.eigh(matrix @ matrix.T).eigenvectors[:, ::-1][:, :rank])


def _letters(kernel: Array, metric: Array | None, *, least: int = 0) -> str:
    """Letters of the kernel's axes, once kernel and metric are checked."""
    axes = kernel.ndim - 2
    if not least <= axes <= len(_TAPS) or kernel.size == 0:
        raise ValueError(f"expected a kernel [out, in, *k] with {least}..{len(_TAPS)} axes, got shape {kernel.shape}")
    check_metric(kernel.reshape(len(kernel), -1), metric)
    return _TAPS[len(_TAPS) - axes :]
