"""What passes share that give a weight few values, and what these learn from samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.jobs import Refusing, Stored, accepted, each
from onnxpress.passes.kernels.arrays import Array, pieces
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, Layout, RefusalError, SitePass, check_choice, check_flag, skipping
from onnxpress.passes.share.drafts import Codebook, Draft, Weight
from onnxpress.passes.share.refitting import refitted
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
        sites = self.candidates(model, report)
        if self.learns:
            for site, seen in self._seen(model, sites, bench):
                with skipping(report, site.name):
                    self._share(model, site, seen, report)
        else:
            self._share_alone(model, sites, bench, report)
        return report

    def share_site(self, model: Model, site: Site, pair: Pair | None, report: Report) -> None:
        """Give one site few values, which are weighed by and refitted to its equations, where it has any.

        Raises:
            RefusalError: it stays as it is.
        """
        squares = None if pair is None else _squares(pair.fit.moment + pair.held_out.moment)
        self._share(model, site, _Seen(squares, pair), report)

    def _seen(self, model: Model, sites: Sequence[Site], bench: Workbench) -> Iterator[tuple[Site, _Seen]]:
        """The sites, with what samples say of them."""
        weighed = self.importance != "none"
        if self.refit:
            for site, pair in equations(model, model.clone(), sites, bench):
                if isinstance(pair, RefusalError):
                    yield site, _Seen(missing=f"not refitted: {pair}")
                else:
                    yield site, _Seen(_squares(pair.fit.moment + pair.held_out.moment) if weighed else None, pair)
        else:
            for site, moment in moments_of(model, sites, bench):
                if isinstance(moment, RefusalError):
                    yield site, _Seen(missing=f"all count alike: {moment}")
                else:
                    yield site, _Seen(_squares(moment.total))

    def _share_alone(self, model: Model, sites: Sequence[Site], bench: Workbench, report: Report) -> None:
        """Give sites few values by their weights alone, on as many workers as there are."""
        weights = (Stored.of(site) for site in sites)
        work = Refusing(partial(_given, self))
        results = each(work, weights, progress=bench.progress, label=self.name, total=len(sites))
        for site, result in zip(sites, results, strict=True):
            with skipping(report, site.name):
                _write(model, site, accepted(result), report)

    def _share(self, model: Model, site: Site, seen: _Seen, report: Report) -> None:
        """Give one site few values; what a large one becomes is measured and forgotten.

        Raises:
            RefusalError: it stays as it is.
        """
        stored = Stored.of(site)
        weight, notes = _weighed(stored, seen)
        draft = self.draft(weight)
        notes.insert(0, draft.said)
        if seen.pair is not None:
            draft, note = refitted(model, site, weight, draft, seen.pair, drafted=self.draft)
            notes.append(note)
        elif seen.missing:
            notes.append(seen.missing)
        _write(model, site, _Given.of(draft, notes), report)


@dataclass(frozen=True, slots=True)
class _Given:
    """The values that a weight gets, and the weight with them where it is small."""

    book: Codebook
    shared: Array | None
    said: str
    error: float

    @classmethod
    def of(cls, draft: Draft, notes: Sequence[str]) -> _Given:
        shared = draft.shared if draft.shared.nbytes < LAZY else None
        return cls(draft.book, shared, ", ".join(notes), draft.error)


def _given(owner: CodebookPass, stored: Stored) -> _Given:
    """What a weight gets by itself."""
    weight, notes = _weighed(stored, _Seen())
    draft = owner.draft(weight)
    return _Given.of(draft, [draft.said, *notes])


def _write(model: Model, site: Site, given: _Given, report: Report) -> None:
    """Give a site its values; what a large one becomes is computed when it is read."""
    old, book = values_of(site.weight), given.book
    model.replace_weight(site.weight, given.shared if given.shared is not None else lambda: book.shared(old.load()))
    report.change(site.name, given.said, bytes_before=site.nbytes, bytes_after=site.nbytes, error=given.error)


def _weighed(stored: Stored, seen: _Seen) -> tuple[Weight, list[str]]:
    """A weight as it is to get values, and what to say of it."""
    array = stored.array
    zeros = sum(int(np.count_nonzero(piece == 0)) for piece in pieces(array))
    keep_zero = zeros > SPARSE * array.size
    weight = Weight(stored.layout, array, _importance(stored.layout, seen.squares), keep_zero)
    return weight, [f"{zeros / array.size:.1%} zeros kept"] if keep_zero else []


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
