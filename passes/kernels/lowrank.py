"""Low-rank factors of matrices and convolution kernels by singular values, and the rule that chooses a rank by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import PIECE, Array, Float64Array


@dataclass(frozen=True, slots=True)
class SVD:
    """left [out, k] · diag(values [k]) · right [k, in], k = min(out, in).

    Columns and rows are orthonormal where the value is above rounding, 1e-15 of the largest.
    """

    left: Float64Array
    values: Float64Array
    right: Float64Array

    def split(self, rank: int) -> tuple[Float64Array, Float64Array]:
        """The best factors of `rank`: (left [out, rank], right [rank, in]), each with the root of the values.

        No others of `rank` have a smaller Frobenius error (Eckart and Young, 1936): √(Σ of values[rank:]²).

        Raises:
            ValueError: `rank` outside 1..k.
        """
        if not 1 <= rank <= self.values.size:
            raise ValueError(f"rank must lie in 1..{self.values.size}, got {rank}")
        root = np.sqrt(self.values[:rank])
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


def svd(matrix: Array) -> SVD:
    """Singular value decomposition by the eigenvectors V of the smaller Gram matrix, W = (W·V)·Vᵀ.

    Many times faster than a direct one on oblong matrices. Since V is orthogonal the product is exact at full rank;
    values below 1e-8 of the largest come unordered within themselves, which no truncation of float32 weights sees.

    Args:
        matrix: [out, in], any float dtype, finite.

    Raises:
        ValueError: not a matrix, empty, or not finite.
    """
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"expected a matrix that is not empty, got shape {matrix.shape}")
    if matrix.shape[0] < matrix.shape[1]:
        tall = svd(matrix.T)
        return SVD(tall.right.T, tall.values, tall.left.T)
    gram = np.zeros((matrix.shape[1], matrix.shape[1]))
    step = max(1, PIECE // matrix.shape[1])
    for row in range(0, matrix.shape[0], step):
        strip = matrix[row : row + step].astype(np.float64)
        if not np.isfinite(strip).all():
            raise ValueError("cannot factorize a matrix that is not finite")
        gram += strip.T @ strip
    axes = np.linalg.eigh(gram).eigenvectors
    scaled = matrix.astype(np.float64) @ axes
    values = np.linalg.norm(scaled, axis=0)
    order = np.argsort(-values, kind="stable")
    values = values[order]
    left = np.divide(scaled[:, order], values, out=np.zeros_like(scaled), where=values > 0)
    return SVD(left, values, np.ascontiguousarray(axes[:, order].T))


def spatial_matrix(kernel: Array) -> Array:
    """A kernel [out, in, kh, kw] as the matrix [out·kw, in·kh] whose factors are a row and a column filter.

    Its best factors are the global optimum of the kernel's Frobenius error (Tai et al., 2016).

    Raises:
        ValueError: not a kernel of four dimensions.
    """
    out, channels, height, width = _kernel_shape(kernel)
    return kernel.transpose(0, 3, 1, 2).reshape(out * width, channels * height)


def spatial_factors(
    left: Float64Array, right: Float64Array, shape: tuple[int, ...]
) -> tuple[Float64Array, Float64Array]:
    """Factors of `spatial_matrix` as kernels: first [rank, in, kh, 1], then [out, rank, 1, kw].

    Args:
        left: [out·kw, rank].
        right: [rank, in·kh].
        shape: (out, in, kh, kw) of the original.
    """
    out, channels, height, width = shape
    rank = right.shape[0]
    horizontal = left.reshape(out, width, rank).transpose(0, 2, 1)[:, :, None, :]
    return right.reshape(rank, channels, height, 1), np.ascontiguousarray(horizontal)


def rank_by_energy(values: Float64Array, energy: float) -> int:
    """The smallest rank, at least 1, whose singular values hold the fraction `energy` of Σ values².

    Args:
        values: [k], descending.
        energy: in (0, 1]; the relative error of the factors is √(1 − energy) at most.

    Raises:
        ValueError: `energy` out of range.
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy must lie in (0, 1], got {energy}")
    held = np.cumsum(np.square(values))
    return min(int(np.searchsorted(held, energy * held[-1])) + 1, values.size)


def _kernel_shape(kernel: Array) -> tuple[int, int, int, int]:
    if kernel.ndim != 4:
        raise ValueError(f"expected a kernel [out, in, kh, kw], got shape {kernel.shape}")
    out, channels, height, width = kernel.shape
    return out, channels, height, width
