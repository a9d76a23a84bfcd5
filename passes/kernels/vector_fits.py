"""A matrix of sub-vectors from codebooks, brought nearer to another one where the error counts by a metric.

With H what a layer reads (Wu et al., "Quantized Convolutional Neural Networks for Mobile Devices", 2016), codes and
codebooks are improved in turns: both steps only lower tr((W − T)·H·(W − T)ᵀ).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.vectors import Numbers, VectorCode, diagonal_blocks

_BLOCK = 128
"""Columns whose gradients are kept up to date while their codes change."""

_RELATIVE = 1e-5
"""Part of the first residual where conjugate gradients stop."""


def reassign(code: VectorCode, target: Array, metric: Array) -> VectorCode:
    """Choose the codes anew, one place of all rows after the other, each the best given all others.

    Args:
        code: as it is.
        target: T, [rows, k].
        metric: H, [groups, k, k]; group g owns an equal share of the rows.

    Returns:
        Codes with which tr((W − T)·H·(W − T)ᵀ) is not above what it was; the same codebooks.
    """
    groups, k, _ = metric.shape
    books, codes, length = code.books, code.codes.copy(), code.length
    off = (code.decode() - target).reshape(groups, -1, k)
    numbers = codes.reshape(len(codes), groups, -1, k // length)
    width = max(length, _BLOCK // length * length)
    for start in range(0, k, width):
        end = min(start + width, k)
        slope = off @ metric[:, :, start:end]
        for column in range(start, end, length):
            place, span = column // length, slice(column, column + length)
            inner = slice(column - start, column - start + length)
            for stage, shelves in enumerate(books):
                book = shelves[place if len(shelves) > 1 else 0]
                step = _improve(numbers[stage, :, :, place], book, metric[:, span, span], slope[:, :, inner])
                off[:, :, span] += step
                slope += step @ metric[:, span, start:end]
    return VectorCode(books, codes)


def refit(code: VectorCode, target: Array, metric: Array, *, iterations: int = 20) -> VectorCode:
    """Fit the codebooks by least squares for the codes as they are: conjugate gradients on all vectors together.

    Args:
        code: as it is; its codes stay.
        target: T, [rows, k].
        metric: H, [groups, k, k], symmetric and positive.
        iterations: at most.

    Returns:
        Codebooks with which tr((W − T)·H·(W − T)ᵀ) is not above what it was.
    """
    left = _gathered(code, _product(target - code.decode(), metric))
    near = _blocks(code, metric)
    books, along, slope, first = code.books.copy(), np.zeros_like(left), 1.0, 0.0
    for turn in range(iterations):
        towards = np.einsum("svclm,svcm->svcl", near, left)
        before, slope = slope, float(np.vdot(left, towards))
        first = first or slope
        if slope <= _RELATIVE**2 * first:
            break
        along = towards if turn == 0 else towards + slope / before * along
        ahead = _gathered(code, _product(VectorCode(along, code.codes).decode(), metric))
        curve = float(np.vdot(along, ahead))
        if curve <= 0:
            break
        books += slope / curve * along
        left -= slope / curve * ahead
    return VectorCode(books, code.codes)


def _improve(codes: Numbers, book: Float64Array, metric: Array, slope: Array) -> Float64Array:
    """Choose the codes [groups, rows] of one place and stage anew, in place; what the sub-vectors change by.

    With b the vector that is there, H the metric's block and g the slope, a vector c changes the error by
    (c − b)·H·(c − b) + 2·(c − b)·g, of which c·H·c − 2·c·(H·b − g) depends on c.
    """
    held = book[codes]
    own = np.einsum("cl,glm,cm->gc", book, metric, book)[:, np.newaxis]
    found = np.argmin(own - 2 * ((held @ metric - slope) @ book.T), axis=2)
    codes[...] = found
    step: Float64Array = book[found] - held
    return step


def _product(matrix: Array, metric: Array) -> Float64Array:
    """A matrix [rows, k] times the metric of the group of each row."""
    groups, k, _ = metric.shape
    result: Float64Array = (matrix.reshape(groups, -1, k) @ metric).reshape(-1, k)
    return result


def _gathered(code: VectorCode, matrix: Float64Array) -> Float64Array:
    """For each vector of the codebooks the sum of a matrix [rows, k] over the places that take it."""
    stages, shelves, count, length = code.books.shape
    parts = matrix.reshape(-1, length)
    result = np.empty((stages, shelves * count, length))
    for stage in range(stages):
        index = _index(code, stage)
        for entry in range(length):
            result[stage, :, entry] = np.bincount(index, parts[:, entry], minlength=shelves * count)
    return result.reshape(code.books.shape)


def _blocks(code: VectorCode, metric: Array) -> Float64Array:
    """The inverse of the block that each vector has on the diagonal of the equations: what brings them near."""
    stages, shelves, count, length = code.books.shape
    diagonal = diagonal_blocks(metric, length)
    groups, places = diagonal.shape[:2]
    rows = code.codes.shape[1]
    result = np.zeros((stages, shelves, count, length, length))
    for stage in range(stages):
        taken = np.zeros((groups, places, count))  # how often each vector stands at each place of a group
        spot = np.arange(places) + places * (np.arange(rows) // (rows // groups))[:, np.newaxis]
        index = spot.reshape(-1) * count + code.codes[stage].reshape(-1)
        taken += np.bincount(index, minlength=taken.size).reshape(taken.shape)
        if shelves > 1:
            result[stage] = np.einsum("gpc,gplm->pclm", taken, diagonal)
        else:
            result[stage, 0] = np.tensordot(taken, diagonal, axes=((0, 1), (0, 1)))
    size = np.einsum("svcll->svc", result)[..., np.newaxis, np.newaxis]
    unused = np.where(size > 0, 1e-9 * size, 1.0)
    return np.asarray(np.linalg.inv(result + unused * np.eye(length)), np.float64)


def _index(code: VectorCode, stage: int) -> NDArray[np.int64]:
    """Which of all vectors of a stage each sub-vector takes, [rows · places]."""
    _, shelves, count, _ = code.books.shape
    index: NDArray[np.int64] = code.codes[stage].astype(np.int64)
    if shelves > 1:
        index += count * np.arange(index.shape[1])
    return index.reshape(-1)
