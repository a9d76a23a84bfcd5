"""Orthogonal transforms: of Hadamard, the discrete cosine transform, and that of Fourier for real blocks."""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.diagonals import Map


def hadamard(size: int) -> Float64Array:
    """The symmetric matrix (−1)^(common ones of i and j in binary), [n, n], of Sylvester and Walsh.

    Its square is n times the identity, and that of n = a·b is the Kronecker product of those of a and b.

    Raises:
        ValueError: the size is no power of two.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"there is no such matrix of size {size}: take a power of two")
    found = np.ones((1, 1))
    while len(found) < size:
        found = np.block([[found, found], [found, -found]])
    return found


def halves(size: int) -> tuple[int, int]:
    """The powers of two a ≥ b with a·b = n that are nearest each other; n is a power of two."""
    bits = size.bit_length() - 1
    return 1 << (bits + 1) // 2, 1 << bits // 2


def walsh(size: int) -> Map:
    """X·H / √n for the matrix H of Hadamard, which is its own transpose and, so scaled, its own inverse."""
    first, second = (hadamard(each) for each in halves(size))

    def times(rows: Float64Array) -> Float64Array:
        parts = first @ rows.reshape(len(rows), len(first), len(second)) @ second
        return np.asarray(parts.reshape(rows.shape) / np.sqrt(size))

    return Map(times, times)


def permuted(order: Array) -> Map:
    """The matrix P with X·P = X[:, inverse of order], so that row i of P·Y is row order[i] of Y."""
    inverse = np.argsort(order)
    return Map(lambda rows: rows[:, inverse], lambda rows: rows[:, order])


def cosine() -> Map:
    """X·C for the discrete cosine transform of type II as orthogonal matrix C [frequency, place]."""
    import scipy.fft

    def times(rows: Float64Array) -> Float64Array:
        return np.asarray(scipy.fft.idct(rows, norm="ortho", axis=1))

    def turned(rows: Float64Array) -> Float64Array:
        return np.asarray(scipy.fft.dct(rows, norm="ortho", axis=1))

    return Map(times, turned)


def fourier(size: int) -> Float64Array:
    """The Fourier transform of real numbers in real numbers, invertible: [place, size/2, 2].

    Of frequencies 1 to size/2 − 1 the real and imaginary part; the first pair is what has no imaginary part, the sum
    and the alternating sum.

    Raises:
        ValueError: the size is odd.
    """
    if size < 2 or size % 2:
        raise ValueError(f"the frequencies of {size} places do not pair: take an even number")
    place = np.arange(size)
    turns = 2 * np.pi * np.outer(place, np.arange(size // 2)) / size
    found = np.stack([np.cos(turns), -np.sin(turns)], axis=2)
    found[:, 0, 1] = np.cos(np.pi * place)
    return found
