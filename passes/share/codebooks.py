"""What passes share that give a weight few values: what they learn from samples, and how the values are refitted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Codes, Float64Array, pieces
from onnxpress.passes.kernels.codebooks import BookNormal, fit_books
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.kmeans import Floats
from onnxpress.passes.kernels.least_squares import Choice, choose_ridge, solve
from onnxpress.passes.refit import account
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, Layout, RefusalError, SitePass, check_choice, check_flag
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

SPARSE = 0.05
"""Fraction of zeros from which a weight is taken for pruned, and its zeros are kept."""

Importance: TypeAlias = Literal["none", "hessian"]

_TRACE = 1e-6
"""Importance of a weight that reads nothing, as part of the mean: it still has to be somewhere."""


@dataclass(frozen=True, slots=True)
class Codebook:
    """Which value each weight takes; keeps values, not codes.

    Attributes:
        layout: of the weight.
        values: [1, values] for the whole weight, [rows, values] for each row of the layout its own.
        code: gives the number of each weight's value, in the shape that is stored.
    """

    layout: Layout
    values: Floats
    code: Callable[[Array], Codes]

    def shared(self, weight: Array) -> Array:
        """A weight with its own values replaced; in its own dtype, which has to hold them."""
        values, codes = self.values.astype(weight.dtype), self.code(weight)
        if len(values) == 1:
            return np.asarray(values[0][codes])
        return self.layout.from_rows(np.take_along_axis(values, self.layout.to_rows(codes).astype(np.int64), 1))


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that is to get few values.

    Attributes:
        layout: of its array.
        array: as stored.
        importance: of each element, of the same shape; None where all count alike.
        keep_zero: whether its zeros stay zero.
    """

    layout: Layout
    array: Array
    importance: Array | None
    keep_zero: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """Few values for a weight.

    Attributes:
        book: gives them.
        said: what a report says of them.
        shared: the weight with them.
        error: ‖W − W'‖ / ‖W‖.
    """

    book: Codebook
    said: str
    shared: Array
    error: float

    @classmethod
    def of(cls, book: Codebook, weight: Weight, said: str) -> Draft:
        """Give a weight the values of a codebook."""
        shared = book.shared(weight.array)
        return cls(book, said, shared, relative_error(weight.array, shared))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What samples say of a layer.

    Attributes:
        squares: Σ x² of its inputs, [groups, k]; None where they do not count.
        pair: its equations, where codebooks are refitted.
        missing: why there is nothing, where there should be.
    """

    squares: Array | None = None
    pair: Pair | None = None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class CodebookPass(SitePass, ABC):
    """A pass that gives every weight few values.

    Attributes:
        importance: `hessian` weighs the error of each weight by the second moment of what it reads, from samples; with
            `none` all count alike.
        refit: fit the values, and the bias, by least squares to what each layer should give, of what the layers before
            it that have few values already give; needs samples. Codes are those of the weight, or of the dense weight
            that makes up best for the layers before it.
        min_size: weights with fewer elements are left alone.
    """

    importance: Importance = "none"
    refit: bool = False
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "importance", ("none", "hessian"))
        check_flag(self, "refit")
        # of this pass as it is set up: without samples it does as well as with made-up ones
        object.__setattr__(self, "learns", self.refit or self.importance != "none")

    @abstractmethod
    def draft(self, weight: Weight) -> Draft:
        """The values for a weight.

        Raises:
            RefusalError: none suffice, or they save nothing.
        """

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Give every site that fits the options few values.

        Raises:
            FeedError: samples are needed, and there are none.
        """
        if self.learns and bench.feed is None:
            wish = "refit" if self.refit else f"importance {self.importance}"
            raise FeedError(f"{self.name} learns from samples what layers read ({wish}); give some with --data")
        report = self.report()
        for site, seen in self._steps(model, self.candidates(model, report), bench):
            try:
                self._share(model, site, seen, report)
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
        return report

    def _steps(self, model: Model, sites: Sequence[Site], bench: Workbench) -> Iterator[tuple[Site, _Seen]]:
        """The sites, with what samples say of them."""
        weighed = self.importance != "none"
        if self.refit:
            for site, pair in equations(model, model.clone(), sites, bench):
                if isinstance(pair, RefusalError):
                    yield site, _Seen(missing=f"not refitted: {pair}")
                else:
                    yield site, _Seen(_squares(pair.fit.moment + pair.held_out.moment) if weighed else None, pair)
        elif weighed:
            for site, moment in moments_of(model, sites, bench):
                if isinstance(moment, RefusalError):
                    yield site, _Seen(missing=f"all count alike: {moment}")
                else:
                    yield site, _Seen(_squares(moment.total))
        else:
            yield from ((each, _Seen()) for each in bench.progress.track(sites, label=self.name, total=len(sites)))

    def _share(self, model: Model, site: Site, seen: _Seen, report: Report) -> None:
        """Give one site few values; what a large one becomes is measured and forgotten.

        Raises:
            RefusalError: it stays as it is.
        """
        layout, old = Layout.of(site), values_of(site.weight)
        stored = old.load()
        zeros = sum(int(np.count_nonzero(piece == 0)) for piece in pieces(stored))
        weight = Weight(layout, stored, _importance(layout, seen.squares), zeros > SPARSE * stored.size)
        draft = self.draft(weight)
        notes = [draft.said]
        if weight.keep_zero:
            notes.append(f"{zeros / site.size:.1%} zeros kept")
        if seen.pair is not None:
            draft, note = self._refitted(model, site, draft, weight, seen.pair)
            notes.append(note)
        elif seen.missing:
            notes.append(seen.missing)
        if old.nbytes < LAZY:
            model.replace_weight(site.weight, draft.shared)
        else:
            book = draft.book
            model.replace_weight(site.weight, lambda: book.shared(old.load()))
        report.change(
            site.name,
            ", ".join(notes),
            bytes_before=site.nbytes,
            bytes_after=site.nbytes,
            error=draft.error,
        )

    def _refitted(self, model: Model, site: Site, draft: Draft, weight: Weight, pair: Pair) -> tuple[Draft, str]:
        """The same with values that give the outputs best, and what to say of it; the bias is fitted, too.

        Codes are those of the weight, or of the dense weight that makes up best for the layers before, whichever does
        better on samples held out.
        """
        intercept = intercept_of(model, site)
        try:
            fits = [_Fit.of(draft, weight, pair, bias=intercept is not None)]
            dense = None if weight.keep_zero else _dense(weight, pair, bias=intercept is not None)
            if dense is not None:
                with suppress(RefusalError):  # that of the weight itself will do
                    fits.append(_Fit.of(self.draft(dense), dense, pair, bias=intercept is not None))
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


def _squares(moment: Array) -> Array:
    return np.asarray(np.einsum("gkk->gk", moment), np.float64)


def _importance(layout: Layout, squares: Array | None) -> Array | None:
    """Of every element of a weight, by what it reads; the mean is one."""
    if squares is None:
        return None
    mean = float(squares.mean())
    if not 0 < mean < math.inf:
        return None
    level = (squares / mean + _TRACE).astype(np.float32)
    rows = np.repeat(level, layout.rows // len(level), axis=0)
    return layout.from_rows(rows)


def _dense(weight: Weight, pair: Pair, *, bias: bool) -> Weight | None:
    """The weight that gives the outputs best without codes; None where it is the one that is there."""
    rows = weight.layout.to_rows(weight.array)
    with threads_for(rows.shape[1]):
        choice = choose_ridge(pair.fit, pair.held_out, rows, bias=bias)
        if math.isinf(choice.ridge):
            return None
        found, _ = solve(pair.total, rows, ridge=choice.ridge, bias=bias)
    return replace(weight, array=narrowed(weight.layout.from_rows(found), weight.array.dtype))


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
            fit, held_out = (BookNormal.of(part, rows, count, each=each) for part in (pair.fit, pair.held_out))
            held = np.stack([np.bincount(row.reshape(-1), minlength=count) for row in (rows if each else rows[None])])
            fixed = (values == 0) & weight.keep_zero
            choice, found, shift = fit_books(fit, held_out, values, held.astype(np.float64), fixed=fixed, bias=bias)
        kept = replace(book, values=found.astype(book.values.dtype), code=lambda _: codes)
        return cls(kept, draft.said, found, choice, shift)
