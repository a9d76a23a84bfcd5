"""Values of codebooks, fitted by least squares to the outputs that a layer should have; the codes stay.

A weight in codes is linear in the values of its codebook, W = Σ_v value_v·(codes = v), so the normal equations of the
layer become ones of as many unknowns as there are values: of a whole weight, or of each row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Codes, Float64Array, Mask
from onnxpress.passes.kernels.least_squares import RIDGES, Choice
from onnxpress.passes.kernels.normal import Normal

_PATIENCE = 2
"""Ridges that may be worse than the best before smaller ones are no longer tried."""


@dataclass(frozen=True, slots=True, eq=False)
class BookNormal:
    """The normal equations of codebooks: one for all rows of a weight, or one for each. All float64.

    With z the sums of what a row reads over the inputs that have the same code, [values]:

    Attributes:
        moment: Σ z·zᵀ, [books, values, values].
        cross: Σ y·z, [books, values].
        input_sum: Σ z, [rows, values].
        output_sum: Σ y, [rows].
        energy: Σ y², over all rows.
        spread: mean variance of what is read, times the samples, [books].
        count: samples summed.
        offset: what the squared error is more than by the sums above, which are exact but for `near`.
    """

    moment: Float64Array
    cross: Float64Array
    input_sum: Float64Array
    output_sum: Float64Array
    energy: float
    spread: Float64Array
    count: int
    offset: float = 0.0

    @classmethod
    def of(cls, normal: Normal, codes: Codes, values: int, *, each: bool) -> BookNormal:
        """The equations of the codebooks of a layer.

        Args:
            normal: of the layer.
            codes: of its weight, [rows, k], below `values`.
            values: of a codebook.
            each: whether every row has a codebook of its own.

        Raises:
            ValueError: shapes that do not fit, or sums that are not finite.
        """
        square = _checked(normal, codes)
        rows = normal.cross.shape[1]
        books = len(codes) if each else 1
        moment, cross = np.zeros((books, values, values)), np.zeros((books, values))
        inputs = np.empty((len(codes), values))
        for row, code in enumerate(codes):
            group, index = divmod(row, rows)
            book = row if each else 0
            moment[book] += _summed(normal.moment[group], code, values)
            cross[book] += np.bincount(code, normal.cross[group, index], values)
            inputs[row] = np.bincount(code, normal.input_sum[group], values)
        spread = _variances(normal, square).mean(1)
        return cls(
            moment,
            cross,
            inputs,
            normal.output_sum.reshape(-1),
            float(normal.energy.sum()),
            spread.repeat(rows) if each else spread.mean(keepdims=True),
            normal.count,
        )

    @classmethod
    def near(cls, normal: Normal, codes: Codes, book: Float64Array, *, rows: int) -> BookNormal:
        """The equations of one codebook, of which some rows of the weight tell the curvature.

        Error and slope at the values that are given are exact; so is what belongs to means. Only the second moment of
        what remains is that of some rows, scaled to what all have on its diagonal.

        Args:
            normal: of the layer.
            codes: of its weight, [rows, k].
            book: the values, [values].
            rows: that tell, at most.

        Raises:
            ValueError: as `of`.
        """
        square = _checked(normal, codes)
        (groups, each, k), values = normal.cross.shape, book.size
        weight = book[codes].reshape(groups, each, k)
        slope = normal.cross - weight @ normal.moment
        lost = float(normal.energy.sum() - np.einsum("grk,grk->", weight, slope + normal.cross))
        places = (np.arange(len(codes))[:, None] * values + codes).reshape(-1)
        sums = np.repeat(normal.input_sum, each, axis=0).reshape(-1)
        inputs: Float64Array = np.bincount(places, sums, len(codes) * values).reshape(-1, values).astype(np.float64)
        variances = _variances(normal, square)
        moment = _curvature(normal, codes, variances, values, rows) + inputs.T @ inputs / normal.count
        steep = np.bincount(codes.reshape(-1), slope.reshape(-1), values)
        energy = float(normal.energy.sum())
        offset = lost - energy + float(book @ moment @ book) + 2 * float(book @ steep)
        return cls(
            moment[None],
            (steep + moment @ book)[None],
            inputs,
            normal.output_sum.reshape(-1),
            energy,
            variances.mean(keepdims=True).reshape(1),
            normal.count,
            offset,
        )

    def __add__(self, other: BookNormal) -> BookNormal:
        """The equations of all rows of both."""
        return BookNormal(
            self.moment + other.moment,
            self.cross + other.cross,
            self.input_sum + other.input_sum,
            self.output_sum + other.output_sum,
            self.energy + other.energy,
            self.spread + other.spread,
            self.count + other.count,
            self.offset + other.offset,
        )

    def intercept(self, books: Float64Array) -> Float64Array:
        """What has to be added to the outputs for their means to be right, [rows]."""
        return self._short(books) / self.count

    def error(self, books: Float64Array, bias: Float64Array | None = None) -> float:
        """‖Y − W·X − b‖ / ‖Y‖ over all outputs: 0.0 where all is zero, infinity where only the outputs are."""
        lost = self.energy + self.offset + float(np.einsum("bv,bvw,bw->", books, self.moment, books, optimize=True))
        lost -= 2 * float((books * self.cross).sum())
        if bias is not None:
            lost += float((bias * (self.count * bias - 2 * self._short(books))).sum())
        if not self.energy:
            return 0.0 if lost <= 0 else math.inf
        return math.sqrt(max(0.0, lost) / self.energy)

    def centred(self) -> tuple[Float64Array, Float64Array]:
        """Moment and cross of rows less their means: an intercept stands for these."""
        if len(self.moment) == 1:
            outer = (self.input_sum.T @ self.input_sum)[None]
            means = (self.output_sum @ self.input_sum)[None]
        else:
            outer = self.input_sum[:, :, None] * self.input_sum[:, None]
            means = self.output_sum[:, None] * self.input_sum
        return self.moment - outer / self.count, self.cross - means / self.count

    def _short(self, books: Float64Array) -> Float64Array:
        return np.asarray(self.output_sum - (self.input_sum * books).sum(1))


def _checked(normal: Normal, codes: Codes) -> Float64Array:
    """Σ x² of every input, [groups, k], of equations that codes fit."""
    if codes.shape != normal.shape:
        raise ValueError(f"codes of shape {list(codes.shape)} do not fit equations for {list(normal.shape)}")
    square: Float64Array = np.einsum("gkk->gk", normal.moment)
    if not (np.isfinite(square).all() and np.isfinite(normal.energy).all() and normal.count):
        raise ValueError("there are no rows to fit, or they are not finite")
    return square


def _variances(normal: Normal, square: Float64Array) -> Float64Array:
    """Of every input, times the samples, [groups, k]."""
    return np.maximum(square - normal.input_sum**2 / normal.count, 0)


def _curvature(normal: Normal, codes: Codes, variances: Float64Array, values: int, rows: int) -> Float64Array:
    """Σ z·zᵀ of one codebook, less what belongs to means, by some rows of the weight, [values, values].

    With d_v = Σ var(x_j) over the weights that have the value v, which is known of all rows, the moment of some rows is
    scaled to S·H·S with S_v² = d_v / (that of these rows). A value that none of these rows has stands alone.
    """
    each = normal.cross.shape[1]
    wide = np.repeat(variances, each, axis=0)
    whole = np.bincount(codes.reshape(-1), wide.reshape(-1), values)
    chosen = np.unique(np.linspace(0, len(codes) - 1, min(rows, len(codes))).astype(np.int64))
    some, moment = np.zeros(values), np.zeros((values, values))
    for row in chosen:
        group, code = row // each, codes[row]
        means = np.bincount(code, normal.input_sum[group], values)
        moment += _summed(normal.moment[group], code, values) - np.outer(means, means) / normal.count
        some += np.bincount(code, variances[group], values)
    known = some > 0
    scale = np.sqrt(np.divide(whole, some, out=np.zeros(values), where=known))
    moment *= np.outer(scale, scale)
    ratios = np.divide(np.diagonal(moment), whole, out=np.ones(values), where=known)
    moment[np.diag_indices(values)] += np.where(known, 0, max(1.0, float(ratios.max(initial=1))) * whole)
    return moment


def _summed(moment: Float64Array, code: Codes, values: int) -> Float64Array:
    """Σ of a moment [k, k] over the rows, and over the columns, of the same code: [values, values]."""
    from scipy.sparse import csc_array

    chosen = csc_array((np.ones(code.size), code.astype(np.int32), np.arange(code.size + 1)), (values, code.size))
    return np.asarray(chosen @ (chosen @ moment).T)


def solve_books(
    normal: BookNormal, books: Float64Array, held: Float64Array, *, ridge: float, fixed: Mask, bias: bool
) -> tuple[Float64Array, Float64Array | None]:
    """The values that give the outputs best, drawn towards the ones that are given.

    Minimises Σ ‖y − W·x − b‖² + λ·‖W − W₀‖² with λ = ridge · mean Σ x².

    Args:
        normal: the equations.
        books: W₀'s values, [books, values].
        held: how many weights have each value, [books, values]; values of none stay.
        ridge: positive.
        fixed: which values stay, [books, values].
        bias: fit an intercept, too.

    Returns:
        Values [books, values], and b [rows]; None without an intercept.
    """
    moment, cross = normal.centred() if bias else (normal.moment, normal.cross)
    free = ~fixed & (held > 0) & (normal.spread[:, None] > 0)
    # in units of values times the root of how many weights have them, ‖W − W₀‖² is the plain square
    unit = np.where(free, 1 / np.sqrt(np.maximum(held, 1)), 0)
    system = unit[:, :, None] * moment * unit[:, None]
    damping = np.where(free, ridge * normal.spread[:, None], 1)
    index = np.arange(books.shape[1])
    system[:, index, index] += damping
    gradient = unit * (cross - np.einsum("bvw,bw->bv", moment, books))
    found = books + unit * np.linalg.solve(system, gradient[:, :, None])[:, :, 0]
    return found, normal.intercept(found) if bias else None


def fit_books(
    fit: BookNormal,
    held_out: BookNormal,
    books: Float64Array,
    held: Float64Array,
    *,
    fixed: Mask,
    bias: bool,
    ridges: Sequence[float] = RIDGES,
) -> tuple[Choice, Float64Array, Float64Array | None]:
    """The ridge that does best on rows held out, and the values and the intercept that it gives on all rows.

    Args:
        fit: equations of the rows to fit.
        held_out: of the rows to judge by.
        books: values as given, [books, values].
        held: how many weights have each, [books, values].
        fixed: which of them stay, [books, values].
        bias: fit an intercept, too.
        ridges: to choose from.

    Returns:
        The choice, whose ridge is infinite where it is best to leave all as it is; values [books, values]; intercept
        [rows], None without one.
    """
    before = held_out.error(books)
    best, waited = Choice(math.inf, before, before), 0
    for ridge in sorted(ridges, reverse=True):
        after = held_out.error(*solve_books(fit, books, held, ridge=ridge, fixed=fixed, bias=bias))
        if after < best.after:
            best, waited = Choice(ridge, before, after), 0
        else:
            waited += 1
        if waited >= _PATIENCE:
            break
    if math.isinf(best.ridge):
        return best, books, None
    return best, *solve_books(fit + held_out, books, held, ridge=best.ridge, fixed=fixed, bias=bias)
