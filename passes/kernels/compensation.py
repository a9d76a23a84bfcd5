"""Levels of few signs, chosen so that later weights make up for the errors of earlier ones."""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.binary import Book, Choices

_WIDTH = 64
"""Columns that are made up for one by one; all before them in one product of matrices."""


def compensated(rows: Array, moment: Array, book: Book, *, damping: float = 0.01) -> Choices:
    """Levels chosen column by column, each the nearest to what makes up for the errors of all columns before.

    As GPTQ does (Frantar et al., 2023) for levels that are not evenly spaced: with M = R·Rᵀ, R upper triangular, the
    error of the outputs is ‖E·R‖², whose column i is E_i·R_ii + Σ_{j<i} E_j·R_ji. Rows for which that is no better than
    the nearest levels keep those.

    Args:
        rows: weights, [groups·rows, k].
        moment: M = Σ x·xᵀ, [groups, k, k], finite.
        book: levels.
        damping: added to the diagonal of M, as a part of its mean.
    """
    nearest = book.choose(rows)
    each = len(rows) // len(moment)
    for group, products in enumerate(moment):
        own = slice(group * each, (group + 1) * each)
        order = np.argsort(-np.diagonal(products), kind="stable")
        ordered = products[np.ix_(order, order)].astype(np.float64)
        mean = float(np.diagonal(ordered).mean())
        if not mean > 0:
            continue
        ordered[np.diag_indices_from(ordered)] += damping * mean
        factor = np.linalg.cholesky(ordered[::-1, ::-1])[::-1, ::-1]
        wide, kept = rows[own][:, order].astype(np.float64), book.of(own)
        found = _column_by_column(wide, factor, kept)
        plain = nearest[own][:, order]
        better = _output_error(wide - kept.values(found), factor) < _output_error(wide - kept.values(plain), factor)
        plain[better] = found[better]
        nearest[own, order] = plain
    return nearest


def _column_by_column(rows: Float64Array, factor: Float64Array, book: Book) -> Choices:
    """The choices of `compensated`, for columns in order."""
    errors, chosen = np.zeros_like(rows), np.empty(rows.shape, np.uint8)
    order, ascending, middles = book.ladder()
    each = np.arange(len(rows)) if len(order) > 1 else np.zeros(len(rows), np.intp)
    for start in range(0, rows.shape[1], _WIDTH):
        stop = min(start + _WIDTH, rows.shape[1])
        due = errors[:, :start] @ factor[:start, start:stop]
        for at in range(start, stop):
            owed = due[:, at - start] + errors[:, start:at] @ factor[start:at, at]
            there = rows[:, at] != 0
            wanted = np.where(there, rows[:, at] + owed / factor[at, at], 0)  # a pruned weight stays so
            place = np.count_nonzero(wanted[:, None] >= middles, axis=1)
            chosen[:, at], values = order[each, place], ascending[each, place]
            if book.keep_zero:
                chosen[~there, at], values[~there] = len(book.combinations) - 1, 0
            errors[:, at] = rows[:, at] - values
    return chosen


def _output_error(error: Float64Array, factor: Float64Array) -> Float64Array:
    """‖E·R‖² of each row."""
    seen = error @ factor
    lost: Float64Array = np.einsum("rk,rk->r", seen, seen)
    return lost
