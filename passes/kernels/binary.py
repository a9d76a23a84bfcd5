"""Weights as sums of few signs, each with a scale of its row.

A row w [k] becomes Σ_p s_p·b_p with codes b_p in {−1, 0, 1}^k. The values that such a sum may take are the rows of a
table of combinations C [levels, parts]: row r has the levels C·s_r, and every weight takes one of them. Scales are
linear in whatever the weights are multiplied with, so they can be solved for by least squares, on the weights or on the
outputs of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.normal import Normal

Choices: TypeAlias = NDArray[np.uint8]
"""The level that each weight takes, by its number in a book."""

ROUNDS = 50
"""Rounds of alternating least squares at most; each lowers the error, few go on for so long."""

_HELD = 1 << 21
"""Elements that are worked on at once: 16 MB in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """The levels of each row.

    Attributes:
        combinations: codes of each level, [levels, parts], of −1, 0 and 1.
        scales: [rows, parts], or [1, parts] for all rows.
        keep_zero: weights that are zero take the last level, whose codes are zero, and no others do.
    """

    combinations: Float64Array
    scales: Float64Array
    keep_zero: bool = False

    @property
    def levels(self) -> Float64Array:
        """The level of each combination, [rows, levels], in no order."""
        return self.scales @ self.combinations.T

    def ladder(self) -> tuple[Choices, Float64Array, Float64Array]:
        """Levels that any weight may take, ascending: their numbers, themselves, and the middles between them."""
        levels = self.levels[:, : len(self.combinations) - self.keep_zero]
        order = np.argsort(levels, axis=1, kind="stable").astype(np.uint8)
        ascending = np.take_along_axis(levels, order, axis=1)
        return order, ascending, (ascending[:, 1:] + ascending[:, :-1]) / 2

    def choose(self, rows: Array) -> Choices:
        """The level nearest to each weight, [rows, k]; halfway between two the upper one.

        Args:
            rows: weights, [rows, k].
        """
        order, _, middles = self.ladder()
        place = np.zeros(rows.shape, np.uint8)
        for middle in middles.T:
            place += rows >= middle[:, None]
        chosen = np.take_along_axis(np.broadcast_to(order, (len(rows), order.shape[1])), place, axis=1)
        if self.keep_zero:
            chosen[rows == 0] = len(self.combinations) - 1
        return chosen

    def values(self, chosen: Choices) -> Float64Array:
        """What the weights become that take these levels, [rows, k]."""
        levels = np.broadcast_to(self.levels, (len(chosen), len(self.combinations)))
        return np.take_along_axis(levels, chosen, axis=1)

    def of(self, rows: slice) -> Book:
        """The book of some rows."""
        return self if len(self.scales) == 1 else replace(self, scales=self.scales[rows])


def binary(rows: Array, importance: Array | None = None, *, keep_zero: bool = False) -> Book:
    """Signs and one scale a row: w ≈ s·sign(w), with s = Σ h·|w| / Σ h, the least Σ h·(w − w')².

    Rastegari et al., "XNOR-Net" (2016), section 3.1.

    Args:
        rows: weights, [rows, k], finite.
        importance: h, [rows, k] or [k] (any shape that broadcasts), not negative; None for ones.
        keep_zero: weights that are zero stay zero.

    Raises:
        ValueError: values that are not finite.
    """
    return residual_binary(rows, 1, importance, keep_zero=keep_zero)


def residual_binary(rows: Array, bits: int, importance: Array | None = None, *, keep_zero: bool = False) -> Book:
    """Sums of signs with a scale each: w ≈ Σ_p s_p·b_p, b_p in {−1, 1}^k.

    Each sum first fits what those before leave (Guo et al., "Network Sketching", 2017, section 3.1); then codes for the
    scales and scales for the codes are solved for in turns (Lin et al., "Towards Accurate Binary Convolutional Neural
    Network", 2017), both exactly, so that the error only falls.

    Args:
        rows: weights, [rows, k], finite.
        bits: sums, 1 to 7.
        importance: as for `binary`.
        keep_zero: likewise.

    Raises:
        ValueError: values that are not finite.
    """
    combinations = np.array(list(product((-1.0, 1.0), repeat=bits)))
    found = []
    for piece, weight in _pieces(rows, importance, keep_zero=keep_zero):
        left, scales = piece.copy(), np.empty((len(piece), bits))
        for part in range(bits):
            scales[:, part] = _means(np.abs(left), weight)
            left -= np.where(left >= 0, 1.0, -1.0) * scales[:, part, None]
        found.append(_alternate(piece, weight, combinations, scales))
    if keep_zero:
        combinations = np.concatenate([combinations, np.zeros((1, bits))])
    return Book(combinations, np.concatenate(found), keep_zero)


def ternary(rows: Array, importance: Array | None = None, *, symmetric: bool = False) -> Book:
    """Zero and one level on either side, the least Σ h·(w − w')² of all thresholds.

    The best level for the m largest weights is their mean, and it saves (Σ h·w)² / Σ h; sorted, all m are tried at
    once. Weights of both signs are independent of each other where each has a level of its own (Zhu et al., "Trained
    Ternary Quantization", 2017); with one level for both, magnitudes are sorted (Li et al., "Ternary Weight Networks",
    2016, who approximate the threshold).

    Args:
        rows: weights, [rows, k], finite.
        importance: as for `binary`.
        symmetric: both levels have the same magnitude.

    Raises:
        ValueError: values that are not finite.
    """
    combinations = np.array([[-1.0], [0.0], [1.0]] if symmetric else [[0.0, -1.0], [0.0, 0.0], [1.0, 0.0]])
    found = []
    for piece, weight in _pieces(rows, importance):
        sides = [np.abs(piece)] if symmetric else [np.maximum(piece, 0), np.maximum(-piece, 0)]
        found.append(np.stack([_top_mean(side, weight) for side in sides], axis=1))
    return Book(combinations, np.concatenate(found))


def in_scales(normal: Normal, chosen: Choices, combinations: Float64Array) -> Normal:
    """The normal equations of a layer in the scales of its rows: what a row gives is linear in them.

    A row that is Σ_p s_p·b_p gives Σ_p s_p·(b_p·x): it reads the parts b_p·x.

    Args:
        normal: of the layer, whose weight is [groups·rows, k].
        chosen: levels of its weights, [groups·rows, k].
        combinations: of the book.

    Returns:
        Equations with a group for each row, of one output and as many inputs as parts.
    """
    groups, each, k = normal.cross.shape
    parts = combinations.shape[1]
    moment, cross = np.empty((groups * each, parts, parts)), np.empty((groups * each, 1, parts))
    sums = np.empty((groups * each, parts))
    step = max(1, _HELD // (k * parts))
    for group in range(groups):
        for start in range(0, each, step):
            own = slice(start, min(each, start + step))
            at = slice(group * each + own.start, group * each + own.stop)
            codes = combinations[chosen[at]].transpose(0, 2, 1)
            moment[at] = codes @ (codes.reshape(-1, k) @ normal.moment[group]).reshape(codes.shape).swapaxes(1, 2)
            cross[at, 0] = np.einsum("rpk,rk->rp", codes, normal.cross[group, own])
            sums[at] = codes @ normal.input_sum[group]
    outputs, energy = normal.output_sum.reshape(-1, 1), normal.energy.reshape(-1, 1)
    return Normal(moment, cross, sums, outputs, energy, normal.count)


def pooled(normal: Normal, *, bias: bool) -> Normal:
    """The equations of scales that all rows share, of those of each row.

    Args:
        normal: what `in_scales` gives.
        bias: each row has an intercept, which is solved for and eliminated.
    """
    moment, cross, energy = normal.moment, normal.cross[:, 0], normal.energy[:, 0]
    if bias:
        inputs, outputs = normal.input_sum, normal.output_sum[:, 0]
        moment = moment - inputs[:, :, None] * inputs[:, None, :] / normal.count
        cross = cross - outputs[:, None] * inputs / normal.count
        energy = energy - outputs**2 / normal.count
    nothing = np.zeros((1, moment.shape[1]))
    return Normal(
        moment.sum(axis=0)[None],
        cross.sum(axis=0)[None, None],
        nothing,
        np.zeros((1, 1)),
        energy.sum()[None, None],
        normal.count,
    )


def fit_scales(
    normal: Normal, scales: Float64Array, *, ridge: float, bias: bool = False
) -> tuple[Float64Array, Float64Array | None]:
    """Scales that give the outputs best, drawn towards those that are given; each row by itself, all at once.

    As `least_squares.solve`, for many small systems.

    Args:
        normal: what `in_scales` or `pooled` gives.
        scales: as they are, [rows, parts].
        ridge: part of the mean diagonal, positive.
        bias: fit an intercept of each row, too.

    Returns:
        Scales [rows, parts], and what is added to the bias [rows]; None without an intercept.
    """
    moment, cross = normal.moment, normal.cross[:, 0]
    inputs, outputs = normal.input_sum, normal.output_sum[:, 0]
    if bias:
        moment = moment - inputs[:, :, None] * inputs[:, None, :] / normal.count
        cross = cross - outputs[:, None] * inputs / normal.count
    damping = ridge * np.einsum("rpp->rp", moment).mean(axis=1)
    damping[~(damping > 0)] = 1.0  # nothing was seen of such a row: the gradient is zero
    gradient = cross - np.einsum("rp,rpq->rq", scales, moment)
    step = np.linalg.solve(moment + damping[:, None, None] * np.eye(scales.shape[1]), gradient[:, :, None])[:, :, 0]
    found = scales + step
    return found, (outputs - np.einsum("rp,rp->r", found, inputs)) / normal.count if bias else None


def _pieces(
    rows: Array, importance: Array | None, *, keep_zero: bool = False
) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Some rows at once, in float64, with the importance of each weight; what is kept at zero has none."""
    wide = None if importance is None else np.broadcast_to(np.asarray(importance, np.float64), rows.shape)
    step = max(1, _HELD // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        piece = rows[start : start + step].astype(np.float64)
        if not np.isfinite(piece).all():
            raise ValueError("cannot give levels to values that are not finite")
        even = (piece != 0).astype(np.float64) if keep_zero else np.ones_like(piece)
        weight = even if wide is None else wide[start : start + step] * even
        seen = weight.sum(axis=1, keepdims=True) > 0  # what no sample reaches counts evenly
        yield piece, np.where(seen, weight, even)


def _alternate(
    rows: Float64Array, importance: Float64Array, combinations: Float64Array, scales: Float64Array
) -> Float64Array:
    """Codes for scales and scales for codes, until no code changes."""
    levels = len(combinations)
    base = np.arange(len(rows))[:, None] * levels
    before: Choices | None = None
    for _ in range(ROUNDS):
        chosen = Book(combinations, scales).choose(rows)
        if before is not None and np.array_equal(before, chosen):
            break
        before, flat = chosen, (chosen + base).reshape(-1)
        shape, size = (len(rows), levels), len(rows) * levels
        mass = np.bincount(flat, importance.reshape(-1), size).reshape(shape)
        total = np.bincount(flat, (importance * rows).reshape(-1), size).reshape(shape)
        moment = np.einsum("lp,rl,lq->rpq", combinations, mass, combinations)
        scales = np.einsum("rpq,rq->rp", np.linalg.pinv(moment, hermitian=True), total @ combinations)
    return scales


def _top_mean(magnitudes: Float64Array, importance: Float64Array) -> Float64Array:
    """For each row the mean of so many of its largest as lowers the squared error most, [rows]."""
    order = np.argsort(-magnitudes, axis=1)
    mass = np.cumsum(np.take_along_axis(importance, order, axis=1), axis=1)
    total = np.cumsum(np.take_along_axis(importance * magnitudes, order, axis=1), axis=1)
    mean = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
    best = np.argmax(mean * total, axis=1)[:, None]
    return np.take_along_axis(mean, best, axis=1)[:, 0]


def _means(values: Float64Array, importance: Float64Array) -> Float64Array:
    """Of each row; 0 where nothing counts."""
    total, mass = (values * importance).sum(axis=1), importance.sum(axis=1)
    means: Float64Array = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
    return means
