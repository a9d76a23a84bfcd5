"""Weights in few levels that are signs times a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.jobs import Refusing, Stored, accepted, each
from onnxpress.passes.kernels.arrays import Array, ascending
from onnxpress.passes.kernels.binary import Book, binary, residual_binary, ternary
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    LAZY,
    Layout,
    RefusalError,
    SitePass,
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    skipping,
    wrong,
)
from onnxpress.passes.share.codebooks import SPARSE
from onnxpress.passes.share.fitting import Coded, fit_codes
from onnxpress.passes.storing import narrowed
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

MOST_BITS = 5
"""Sums of signs at most: 32 levels."""


@dataclass(frozen=True, kw_only=True)
class Binarize(SitePass):
    """Give each weight one of few levels: signs times a scale of its channel, sums of such, or zero as well.

    `binary` is the weight half of XNOR-Net (Rastegari et al., 2016), `ternary` that of Ternary Weight Networks (Li et
    al., 2016) and Trained Ternary Quantization (Zhu et al., 2017), without training but with the best threshold of all;
    `bits` sums signs (Lin et al., "ABC-Net", 2017; Guo et al., "Network Sketching", 2017). On samples, weights count by
    the second moments of what they multiply, later weights make up for the errors of earlier ones, and scales and
    biases are fitted to the outputs of each layer, one layer after the other, so that layers also make up for those
    before. The weights stay dense arrays of few distinct values a channel; `encode` stores them as codes.

    Attributes:
        levels: `binary` for −s and s, `ternary` for a level on either side of zero; exactly one of `levels` and `bits`.
        bits: number of scaled signs that are summed, 1 to 5, for 2^bits levels.
        symmetric: both levels of `ternary` have the same magnitude.
        per: `channel` for scales of each output channel, `tensor` for one set a weight.
        refit: fit scales and biases to the outputs of layers, where there are samples.
        compensate: let weights make up for the errors of others, where that is better on samples held out.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "binarize"
    learns: ClassVar[bool] = True
    levels: Literal["binary", "ternary"] | None = None
    bits: int | None = None
    symmetric: bool = False
    per: Literal["tensor", "channel"] = "channel"
    refit: bool = True
    compensate: bool = True
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("levels", "bits"))
        if self.levels is not None:
            check_choice(self, "levels", ("binary", "ternary"))
        if self.bits is not None:
            check_count(self, "bits")
            if self.bits > MOST_BITS:
                raise wrong(self, "bits", f"lie in 1 to {MOST_BITS}")
        for flag in ("symmetric", "refit", "compensate"):
            check_flag(self, flag)
        if self.symmetric and self.levels != "ternary":
            raise ConfigError(f"{self.name}: symmetric is for levels: ternary, the others are symmetric anyway")
        check_choice(self, "per", ("tensor", "channel"))

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Give levels to every site that fits the options."""
        report = self.report()
        sites = self.candidates(model, report)
        if bench.feed is None or not sites:
            self._round_all(model, sites, bench, report)
            return report
        for site, pair in equations(model, model.clone(), sites, bench):
            with skipping(report, site.name):
                if isinstance(pair, Pair):
                    self._fit(model, site, pair, report)
                else:
                    why = f"; scales are those of the weights alone: {pair}"
                    self._write(model, site, _rounded(self, Stored.of(site)), report, why=why)
        return report

    def _round_all(self, model: Model, sites: Sequence[Site], bench: Workbench, report: Report) -> None:
        """Nearest levels, by the weights alone, on as many workers as there are."""
        weights = (Stored.of(site) for site in sites)
        work = Refusing(partial(_rounded, self))
        results = each(work, weights, progress=bench.progress, label=self.name, total=len(sites))
        for site, result in zip(sites, results, strict=True):
            with skipping(report, site.name):
                self._write(model, site, accepted(result), report)

    def _write(self, model: Model, site: Site, found: _Rounded, report: Report, *, why: str = "") -> None:
        """Give a site its levels; what a large one becomes is computed when it is read."""
        old = values_of(site.weight)
        self._tell(report, site, found.error, f"{self._what(found.book)}{why}")
        model.replace_weight(site.weight, found.array if found.array is not None else lambda: found.coded(old.load()))

    def nearest(self, weight: Stored) -> Book:
        """The levels of a weight, by itself.

        Raises:
            RefusalError: they save nothing, or it has so few values already.
        """
        rows = weight.layout.to_rows(self._checked(weight.layout, weight.array))
        return self._book(rows, None, keep_zero=_sparse(weight.array))

    def _fit(self, model: Model, site: Site, pair: Pair, report: Report) -> None:
        """Levels, codes, scales and bias by what the layer should give."""
        layout, stored = Layout.of(site), site.array()
        sparse = _sparse(self._checked(layout, stored))
        found = fit_codes(
            model,
            site,
            pair,
            lambda rows, importance: self._book(rows, importance, keep_zero=sparse),
            options=Coded(refit=self.refit, compensate=self.compensate, sparse=sparse),
        )
        error = relative_error(stored, site.array())
        self._tell(report, site, error, f"{self._what(found.book)}; {found.account}")

    def _book(self, rows: Array, importance: Array | None, *, keep_zero: bool) -> Book:
        """The levels of each row, or of all."""
        if self.per == "tensor":
            importance = None if importance is None else np.broadcast_to(importance, rows.shape).reshape(1, -1)
            rows = rows.reshape(1, -1)
        try:
            if self.levels == "ternary":
                return ternary(rows, importance, symmetric=self.symmetric)
            if self.bits is not None:
                return residual_binary(rows, self.bits, importance, keep_zero=keep_zero)
            return binary(rows, importance, keep_zero=keep_zero)
        except ValueError as error:
            raise RefusalError(str(error)) from error

    def _checked(self, layout: Layout, stored: Array) -> Array:
        """The weight.

        Raises:
            RefusalError: levels and codes take no less than it does, or it has so few values already.
        """
        if not np.isfinite(stored).all():
            raise RefusalError("cannot give levels to values that are not finite")
        rows = layout.to_rows(stored) if self.per == "channel" else stored.reshape(1, -1)
        bits = self.bits or (2 if self.levels == "ternary" else 1)
        count = 3 if self.levels == "ternary" else 1 << bits
        take = math.ceil(stored.size * bits / 8) + len(rows) * count * stored.itemsize
        if take >= stored.nbytes:
            raise RefusalError(
                f"{count} levels{self._each()} save nothing: codes and levels take {take} bytes, the weight "
                f"{stored.nbytes}"
            )
        kept = int(_sparse(stored) and self.levels != "ternary")
        if all(_has_few(row, count + kept) for row in rows):
            raise RefusalError(f"has no more than {count} distinct values{self._each()} already")
        return stored

    def _tell(self, report: Report, site: Site, error: float, action: str) -> None:
        report.change(site.name, action, bytes_before=site.nbytes, bytes_after=site.nbytes, error=error)

    def _what(self, book: Book) -> str:
        kept = book.keep_zero
        return f"{len(book.combinations) - kept} levels{self._each()}" + (", zeros kept" if kept else "")

    def _each(self) -> str:
        return " a channel" if self.per == "channel" else ""


@dataclass(frozen=True, slots=True)
class _Rounded:
    """The levels of a weight, and the weight on them where it is small."""

    layout: Layout
    book: Book
    array: Array | None
    error: float

    def coded(self, weight: Array) -> Array:
        """A weight on these levels."""
        rows = self.layout.to_rows(weight)
        return narrowed(self.layout.from_rows(self.book.values(self.book.choose(rows))), weight.dtype)


def _rounded(owner: Binarize, weight: Stored) -> _Rounded:
    """A weight on its nearest levels, by itself."""
    found = _Rounded(weight.layout, owner.nearest(weight), None, 0.0)
    array = found.coded(weight.array)
    kept = array if array.nbytes < LAZY else None
    return replace(found, array=kept, error=relative_error(weight.array, array))


def _has_few(row: Array, most: int) -> bool:
    """Whether there are no more distinct values, which the first of them mostly tell."""
    return all(ascending(part).size <= most for part in (row[:4096], row))


def _sparse(weight: Array) -> bool:
    """Whether a weight is taken for pruned."""
    return bool(np.count_nonzero(weight == 0) > SPARSE * weight.size)
