"""Tensor decompositions of convolution kernels: Tucker over the channels, and CP.

Both iterate as TensorLy does (the tests hold them to it), but contract the widest axis first and take eigenvectors of
small Gram matrices: on a 256 x 256 x 3 x 3 kernel that saves most of the time and the large Khatri-Rao products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import svd

_EXPLODED = 30.0
"""Terms of a CP decomposition this many times larger than what they add up to cancel each other: degenerate."""

_PULL = 1e-6


class DegenerateError(ValueError):
    """A decomposition that does not converge: its terms grow and cancel."""


@dataclass(frozen=True, slots=True)
class Tucker2:
    """A convolution as pointwise, narrow and pointwise again: kernel = core ×₀ last ×₁ firstᵀ.

    Attributes:
        first: [r_in, in], applied to the input.
        core: [r_out, r_in, *k].
        last: [out, r_out], gives the output.
    """

    first: Float64Array
    core: Float64Array
    last: Float64Array

    def dense(self) -> Float64Array:
        """The kernel [out, in, *k] that the factors stand for."""
        wide: Float64Array = np.einsum("or,rs...,si->oi...", self.last, self.core, self.first, optimize=True)
        return wide


@dataclass(frozen=True, slots=True)
class CP:
    """A convolution as pointwise, one filter for each axis and rank, and pointwise again.

    Attributes:
        first: [r, in], applied to the input.
        spatial: for each kernel axis [k, r], one depthwise filter for each rank.
        last: [out, r], gives the output.
    """

    first: Float64Array
    spatial: tuple[Float64Array, ...]
    last: Float64Array

    def dense(self) -> Float64Array:
        """The kernel [out, in, *k] that the factors stand for."""
        terms = self.first.T  # [in, *k, r], one axis more each time
        for factor in self.spatial:
            terms = terms[..., None, :] * factor
        return np.moveaxis(np.tensordot(terms, self.last, axes=(-1, 1)), -1, 0)


def channel_values(kernel: Array) -> tuple[Float64Array, Float64Array]:
    """Singular values of the kernel unfolded along its output and its input channels, to choose Tucker ranks by.

    Args:
        kernel: [out, in, *k].
    """
    _check_kernel(kernel)
    wide = kernel.astype(np.float64)
    return svd(_unfolded(wide, 0)).values, svd(_unfolded(wide, 1)).values


def tucker2(kernel: Array, ranks: tuple[int, int], *, iterations: int = 20, tolerance: float = 1e-6) -> Tucker2:
    """Tucker-2 of the channel axes (Kim et al., 2016): HOSVD, then HOOI until it rests; deterministic.

    Args:
        kernel: [out, in, *k], any float dtype, finite.
        ranks: (r_out, r_in), each from 1 to its number of channels.
        iterations: of HOOI at most, at least 1.
        tolerance: relative gain of the core's norm below which it rests.

    Raises:
        ValueError: fewer than two dimensions, not finite, or a rank or `iterations` out of range.
    """
    _check_kernel(kernel)
    for rank, channels, name in zip(ranks, kernel.shape[:2], ("output", "input"), strict=True):
        if not 1 <= rank <= channels:
            raise ValueError(f"the {name} rank must lie in 1..{channels}, got {rank}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    wide = kernel.astype(np.float64)
    first = _leading(_unfolded(wide, 1), ranks[1])
    before = -1.0
    for _ in range(iterations):
        last = _leading(_unfolded(np.tensordot(wide, first, axes=(1, 0)), 0), ranks[0])
        narrow = np.tensordot(last, wide, axes=(0, 0))  # [r_out, in, *k]
        first = _leading(_unfolded(narrow, 1), ranks[1])
        core = np.moveaxis(np.tensordot(narrow, first, axes=(1, 0)), -1, 1)
        held = float(np.linalg.norm(core))
        if held - before <= tolerance * held:
            break
        before = held
    return Tucker2(first.T, core, last)


def cp(kernel: Array, rank: int, *, seed: int = 0, iterations: int = 100, tolerance: float = 1e-6) -> CP:
    """CP by alternating least squares (Lebedev et al., 2015), the same for the same seed.

    Args:
        kernel: [out, in, *k] with at least one kernel axis, any float dtype, finite.
        rank: terms, at least 1.
        seed: of what the start holds beyond singular vectors.
        iterations: at most.
        tolerance: of the relative error between two of them.

    Returns:
        Factors whose terms have equal norms in every mode.

    Raises:
        ValueError: fewer than three dimensions, not finite, or `rank` or `iterations` below 1.
        DegenerateError: the terms grow without bound and cancel each other, so float32 could not hold the result.
    """
    _check_kernel(kernel)
    if kernel.ndim < 3:
        raise ValueError(f"CP needs a kernel [out, in, ...] with a kernel axis, got shape {kernel.shape}")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    wide = kernel.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if norm == 0:
        last, first, *spatial = (np.zeros((size, rank)) for size in wide.shape)
        return CP(first.T, tuple(spatial), last)
    start = _start(wide, rank, np.random.default_rng(seed))
    try:
        factors = _alternate(wide / norm, start, iterations, tolerance)
    except np.linalg.LinAlgError as error:
        raise DegenerateError(f"CP of rank {rank} is degenerate: its equations are singular; lower the rank") from error
    last, first, *spatial = _balanced(factors, norm, rank)
    return CP(first.T, tuple(spatial), last)


def _start(kernel: Float64Array, rank: int, rng: np.random.Generator) -> list[Float64Array]:
    """Leading singular vectors of every unfolding, random ones where there are not so many; about of unit norm."""
    share = rank ** (-0.5 / kernel.ndim)
    factors = []
    for axis, size in enumerate(kernel.shape):
        leading = _leading(_unfolded(kernel, axis), min(rank, size))
        fill = rng.standard_normal((size, rank - leading.shape[1])) / math.sqrt(size)
        factors.append(np.concatenate([leading, fill], axis=1) * share)
    return factors


def _alternate(
    kernel: Float64Array, factors: list[Float64Array], iterations: int, tolerance: float
) -> list[Float64Array]:
    """Alternating least squares on a kernel of unit norm, from the last axis to the first."""
    unfolded, before = _unfolded(kernel, 0), math.inf
    for _ in range(iterations):
        partial = np.tensordot(kernel, factors[0], axes=(0, 0))  # [in, *k, r], serves every axis but the first
        for axis in reversed(range(1, kernel.ndim)):
            factors[axis] = _solve(factors, axis, _reduced(partial, factors[1:], axis - 1))
        projected = unfolded @ _khatri_rao(factors[1:])
        factors[0] = _solve(factors, 0, projected)
        # ‖K − A‖² = 1 − 2⟨K, A⟩ + ‖A‖²
        approximation = np.prod([factor.T @ factor for factor in factors], axis=0).sum()
        error = math.sqrt(max(0.0, 1 - 2 * float(np.vdot(projected, factors[0])) + float(approximation)))
        if abs(before - error) < tolerance:
            break
        before = error
    return factors


def _solve(factors: list[Float64Array], axis: int, projected: Float64Array) -> Float64Array:
    """The factor of `axis` that fits best while the others stay, with a slight pull to where it was.

    The pull makes singular systems solvable and keeps what they leave free from growing; it moves no fixed point.
    """
    gram = np.prod([factor.T @ factor for index, factor in enumerate(factors) if index != axis], axis=0)
    pull = _PULL * np.trace(gram) / len(gram)
    gram[np.diag_indices_from(gram)] += pull
    solved: Float64Array = np.linalg.solve(gram, (projected + pull * factors[axis]).T).T
    return solved


def _reduced(partial: Float64Array, factors: list[Float64Array], keep: int) -> Float64Array:
    """Σ over every axis but `keep` of partial [in, *k, r] times the factors, as [size of `keep`, r]."""
    letters = "abcdefgh"[: len(factors)]
    others = [index for index in range(len(factors)) if index != keep]
    terms = ",".join([f"{letters}z", *(f"{letters[index]}z" for index in others)])
    reduced: Float64Array = np.einsum(
        f"{terms}->{letters[keep]}z", partial, *(factors[index] for index in others), optimize=True
    )
    return reduced


def _khatri_rao(factors: list[Float64Array]) -> Float64Array:
    """Columnwise Kronecker products, [∏ sizes, r]."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor).reshape(-1, factor.shape[1])
    return product


def _balanced(factors: list[Float64Array], norm: float, rank: int) -> list[Float64Array]:
    """Factors of a kernel of unit norm, each term's norm shared by its columns alike, scaled up by `norm`."""
    sizes = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
    terms = sizes.prod(axis=0)
    total = float(np.linalg.norm(terms))
    if not total <= _EXPLODED:
        raise DegenerateError(
            f"CP of rank {rank} is degenerate: its terms are {total:.3g} times larger than the kernel and cancel; "
            "lower the rank or take another seed"
        )
    share = (terms * norm) ** (1 / len(factors))
    return [
        np.divide(factor * share, size, out=np.zeros_like(factor), where=size > 0)
        for factor, size in zip(factors, sizes, strict=True)
    ]


def _leading(matrix: Float64Array, rank: int) -> Float64Array:
    """The `rank` leading left singular vectors, orthonormal whatever the matrix."""
    return np.ascontiguousarray(np.linalg.eigh(matrix @ matrix.T).eigenvectors[:, ::-1][:, :rank])


def _unfolded(kernel: Float64Array, axis: int) -> Float64Array:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _check_kernel(kernel: Array) -> None:
    if kernel.ndim < 2 or kernel.size == 0:
        raise ValueError(f"expected a kernel [out, in, ...] that is not empty, got shape {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ValueError("cannot factorize a kernel that is not finite")
