"""What passes share that give a weight few values, and what these learn from samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.kernels.arrays import Array, pieces
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, Layout, RefusalError, SitePass, check_choice, check_flag, skipping
from onnxpress.passes.share.drafts import Draft, Weight
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
        for site, seen in self._steps(model, self.candidates(model, report), bench):
            with skipping(report, site.name):
                self._share(model, site, seen, report)
        return report

    def share_site(self, model: Model, site: Site, pair: Pair | None, report: Report) -> None:
        """Give one site few values, which are weighed by and refitted to its equations, where it has any.

        Raises:
            RefusalError: it stays as it is.
        """
        squares = None if pair is None else _squares(pair.fit.moment + pair.held_out.moment)
        self._share(model, site, _Seen(squares, pair), report)

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
            draft, note = refitted(model, site, weight, draft, seen.pair, drafted=self.draft)
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
