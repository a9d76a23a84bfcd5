"""The few values of a weight, fitted by least squares to what its layer should give."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from onnxpress.passes.equations import Pair
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Codes, Float64Array
from onnxpress.passes.kernels.codebooks import BookNormal, fit_books
from onnxpress.passes.kernels.least_squares import Choice, choose_ridge, solve
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.refit import account
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.drafts import Codebook, Draft, Weight
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_ROWS, _TELLING = 24, 1 << 15
"""Rows of a weight, and weights, that tell how the output's error changes with the values of its codebook."""

Drafting: TypeAlias = Callable[[Weight], Draft]
"""Finds values for a weight; raises RefusalError where there are none."""


def refitted(
    model: Model, site: Site, weight: Weight, draft: Draft, pair: Pair, *, drafted: Drafting
) -> tuple[Draft, str]:
    """A draft with values that give the outputs best, and what to say of it; the bias is fitted, too.

    Codes are those of the weight, or of the dense weight that makes up best for the layers before, whichever does
    better on samples held out.

    Args:
        model: holds the bias.
        site: of the weight.
        weight: is to get few values.
        draft: those of the weight itself.
        pair: what the layer should give.
        drafted: finds values for another weight.
    """
    intercept = intercept_of(model, site)
    try:
        fits = [_Fit.of(draft, weight, pair, bias=intercept is not None)]
        dense = None if weight.keep_zero else _dense(weight, pair, bias=intercept is not None)
        if dense is not None:
            with suppress(RefusalError):  # that of the weight itself will do
                fits.append(_Fit.of(drafted(dense), dense, pair, bias=intercept is not None))
        best = min(fits, key=lambda each: each.choice.after)
        before = fits[0].choice.before
        if best.choice.after >= before:
            return draft, f"not refitted: that does not lower the output error, {100 * before:.3g} %"
        narrowed(best.values, weight.array.dtype)
        if intercept is not None and best.shift is not None:
            intercept.add(model, best.shift)
    except (ValueError, RefusalError) as error:
        return draft, f"not refitted: {error}"
    return Draft.of(best.book, weight, best.said), account(replace(best.choice, before=before))


def _dense(weight: Weight, pair: Pair, *, bias: bool) -> Weight | None:
    """The weight that gives the outputs best without codes; None where it is the one that is there."""
    rows = weight.layout.to_rows(weight.array)
    with threads_for(rows.shape[1]):
        choice = choose_ridge(pair.fit, pair.held_out, rows, bias=bias)
        if math.isinf(choice.ridge):
            return None
        found, _ = solve(pair.total, rows, ridge=choice.ridge, bias=bias)
    return replace(weight, array=narrowed(weight.layout.from_rows(found), weight.array.dtype))


def _equations(normal: Normal, codes: Codes, values: Float64Array) -> BookNormal:
    """Those of the values; of a large weight with one codebook some rows tell how steep they are."""
    some = max(_ROWS, _TELLING // codes.shape[1])
    if len(values) > 1 or len(codes) <= some:
        return BookNormal.of(normal, codes, values.shape[1], each=len(values) > 1)
    return BookNormal.near(normal, codes, values[0], rows=some)


@dataclass(frozen=True, slots=True)
class _Fit:
    """What least squares gives for some codes.

    Attributes:
        book: codes and fitted values.
        said: what a report says of them.
        values: the same in float64, [books, values].
        choice: how far the outputs were off on samples held out.
        shift: what is to be added to the bias, [rows]; None for nothing.
    """

    book: Codebook
    said: str
    values: Float64Array
    choice: Choice
    shift: Float64Array | None

    @classmethod
    def of(cls, draft: Draft, weight: Weight, pair: Pair, *, bias: bool) -> _Fit:
        """Fit the values of a draft; its codes are kept, for another weight does not tell them.

        Raises:
            ValueError: no equations can be solved.
        """
        book, codes = draft.book, draft.book.code(weight.array)
        rows, values = book.layout.to_rows(codes), book.values.astype(np.float64)
        count, each = values.shape[1], len(values) > 1
        with threads_for(rows.shape[1]):
            fit, held_out = (_equations(part, rows, values) for part in (pair.fit, pair.held_out))
            held = np.stack([np.bincount(row.reshape(-1), minlength=count) for row in (rows if each else rows[None])])
            fixed = (values == 0) & weight.keep_zero
            choice, found, shift = fit_books(fit, held_out, values, held.astype(np.float64), fixed=fixed, bias=bias)
        kept = replace(book, values=found.astype(book.values.dtype), code=lambda _: codes)
        return cls(kept, draft.said, found, choice, shift)
