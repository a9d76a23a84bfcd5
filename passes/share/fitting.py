"""Codes and scales of one layer, fitted to what the layer should give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.equations import Pair
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.binary import Book, Choices, fit_scales, in_scales, pooled
from onnxpress.passes.kernels.compensation import compensated
from onnxpress.passes.kernels.least_squares import choose_ridge, error, solve
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

Booking = Callable[[Array, Array | None], Book]
"""The levels for weights [rows, k] whose inputs have second moments [rows, k]."""

_RIDGES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""What the ridges of scales are chosen from: a row has few scales, and they are well determined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """How codes are fitted.

    Attributes:
        refit: fit scales and bias to the outputs.
        compensate: let weights make up for the errors of others.
        sparse: weights that are zero stay zero.
    """

    refit: bool
    compensate: bool
    sparse: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a layer.

    Attributes:
        book: the levels that are written.
        account: the error of its output on samples held out, as a phrase.
    """

    book: Book
    account: str


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Codes with scales, and how far the outputs of held-out samples are off."""

    chosen: Choices
    book: Book
    ridge: float
    error: float
    what: str


def fit_codes(model: Model, site: Site, pair: Pair, booking: Booking, *, options: Coded) -> Fitted:
    """Give a layer codes, scales, and where it has one a bias, by what it should give.

    The weight is first refitted as it is, by least squares, to what the layer should give of what it reads now; the
    codes stand for that weight (or for the old one), the scales are then fitted to the outputs. Each step is kept where
    it is better on samples held out.

    Args:
        model: holds the layer; weight and bias are replaced.
        site: its weight.
        pair: its equations.
        booking: sets up the levels.
        options: which steps are tried.

    Raises:
        RefusalError: the type of weight or bias cannot hold the result, or the equations cannot be solved; nothing
            was changed.
    """
    layout, stored = Layout.of(site), site.array()
    rows, intercept = layout.to_rows(stored), intercept_of(model, site)
    bias = intercept is not None and options.refit
    try:
        with threads_for(rows.shape[1]):
            plain, best = _best(rows, pair, booking, options, bias=bias)
            scales, delta = _scales(pair.total, best, bias=bias)
    except (ValueError, np.linalg.LinAlgError) as failure:
        raise RefusalError(str(failure)) from failure
    book = Book(best.book.combinations, scales, best.book.keep_zero)
    weight = narrowed(layout.from_rows(book.values(best.chosen)), stored.dtype)
    if intercept is not None and delta is not None:
        intercept.add(model, delta)
    model.replace_weight(site.weight, weight)
    return Fitted(book, _account(plain, best))


def _best(rows: Array, pair: Pair, booking: Booking, options: Coded, *, bias: bool) -> tuple[_Trial, _Trial]:
    """The nearest levels with their own scales, and what is best on samples held out."""
    importance = _importance(pair.total, rows)
    book = booking(rows, importance)
    chosen = book.choose(rows)
    plain = _Trial(chosen, book, math.inf, error(pair.held_out, book.values(chosen)), "nearest levels")
    best = plain
    for what, target in _targets(rows, pair, options, bias=bias):
        own = book if target is rows else booking(target, importance)
        choices = [(what, own.choose(target))]
        if options.compensate:
            choices.append((f"{what}, compensated", compensated(target, pair.total.moment, own)))
        for told, codes in choices:
            for trial in (_unfitted(pair, own, codes, told), _refitted(pair, own, codes, told, options, bias=bias)):
                best = trial if trial is not None and trial.error < best.error else best
    return plain, best


def _targets(rows: Array, pair: Pair, options: Coded, *, bias: bool) -> list[tuple[str, Array]]:
    """The weight, and where that is better one that makes up for the layers before."""
    if not options.refit:
        return [("nearest levels", rows)]
    mask = rows != 0 if options.sparse else None
    choice = choose_ridge(pair.fit, pair.held_out, rows, mask=mask, bias=bias)
    if math.isinf(choice.ridge):
        return [("nearest levels", rows)]
    target, _ = solve(pair.total, rows, ridge=choice.ridge, mask=mask, bias=bias)
    return [("nearest levels", rows), ("levels of the refitted weight", target)]


def _unfitted(pair: Pair, book: Book, chosen: Choices, what: str) -> _Trial:
    return _Trial(chosen, book, math.inf, error(pair.held_out, book.values(chosen)), what)


def _refitted(pair: Pair, book: Book, chosen: Choices, what: str, options: Coded, *, bias: bool) -> _Trial | None:
    """Scales and bias fitted to the outputs, by the ridge that held-out samples like best."""
    if not options.refit:
        return None
    fit, best = in_scales(pair.fit, chosen, book.combinations), None
    for ridge in _RIDGES:
        scales, delta = _solved(fit, book.scales, ridge=ridge, bias=bias)
        values = Book(book.combinations, scales, book.keep_zero).values(chosen)
        trial = _Trial(chosen, book, ridge, error(pair.held_out, values, delta), what)
        best = trial if best is None or trial.error < best.error else best
    return best


def _scales(normal: Normal, trial: _Trial, *, bias: bool) -> tuple[Float64Array, Float64Array | None]:
    """Scales by the ridge of a trial, and what is added to the bias."""
    if math.isinf(trial.ridge):
        return trial.book.scales, None
    parts = in_scales(normal, trial.chosen, trial.book.combinations)
    return _solved(parts, trial.book.scales, ridge=trial.ridge, bias=bias)


def _solved(
    parts: Normal, scales: Float64Array, *, ridge: float, bias: bool
) -> tuple[Float64Array, Float64Array | None]:
    """Scales of each row, or those that all rows share; the bias is that of each row."""
    if len(scales) == len(parts.cross):
        return fit_scales(parts, scales, ridge=ridge, bias=bias)
    shared, _ = fit_scales(pooled(parts, bias=bias), scales, ridge=ridge)
    if not bias:
        return shared, None
    return shared, (parts.output_sum[:, 0] - parts.input_sum @ shared[0]) / parts.count


def _importance(normal: Normal, rows: Array) -> Float64Array:
    """Σ x² of the input that each weight multiplies, [rows, k]."""
    square = np.einsum("gkk->gk", normal.moment)
    return np.repeat(square, len(rows) // len(square), axis=0) if len(square) > 1 else square


def _account(plain: _Trial, best: _Trial) -> str:
    if best is plain:
        return f"output error {100 * plain.error:.3g} %; nothing fitted is better on samples held out"
    scales = "" if math.isinf(best.ridge) else ", scales refitted"
    return f"{best.what}{scales}: output error {100 * plain.error:.3g} % -> {100 * best.error:.3g} %"
