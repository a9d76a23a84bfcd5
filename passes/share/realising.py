"""Prunes and shares weights one after another, each within what the ones before have left over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import decibels, relative_error
from onnxpress.passes.kernels.packing import distinct
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.coder import ShareWithin
from onnxpress.passes.share.measuring import largest
from onnxpress.passes.share.offers import Known, Offer, Purse
from onnxpress.passes.share.stored import least, stored_as
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

NAME = "share-budget"


def layers(
    model: Model, original: Model, sites: Sequence[Site], bench: Workbench
) -> Iterator[tuple[Site, Pair | RefusalError]]:
    """Sites with their equations, or with the reason why they have none."""
    if bench.feed is None:
        reason = RefusalError("there are no samples")
        yield from ((site, reason) for site in bench.progress.track(sites, label="weights", total=len(sites)))
        return
    looked_up = [site for site in sites if any(use.node.op == "Gather" for use in site.uses)]
    yield from ((site, RefusalError("its rows are looked up, not summed")) for site in looked_up)
    yield from equations(model, original, [site for site in sites if site not in looked_up], bench)


@dataclass(frozen=True, eq=False)
class Work:
    """Carries out what was shared out.

    Attributes:
        model: a clone of the original, which is changed.
        original: as it was measured.
        bench: brings the samples.
        report: takes changes, skips and warnings.
        known: what was measured.
        offers: what was chosen, by the name of the site; grows.
    """

    model: Model
    original: Model
    bench: Workbench
    report: Report
    known: Sequence[Known]
    offers: dict[str, Offer] = field(default_factory=dict)

    def run(self, purse: Purse) -> None:
        """Prune and share all weights, one after another."""
        known = {each.site.name: each for each in self.known}
        sites = [site for site in find_sites(self.model) if site.name in known]
        for site, pair in layers(self.model, self.original, sites, self.bench):
            offer, limit = purse.offer(site.name)
            self.offers[site.name] = offer
            before = site.array()
            if offer.width < math.inf:
                self._realise(site, pair, known[site.name], offer, limit)
            options = stored_as(site.array(), huffman=known[site.name].huffman)
            purse.spend(site.name, options)
            self._tell(site, before, least(options).nbytes, offer, pair)
        if purse.taken > purse.budget:
            more = purse.taken - purse.budget
            self.report.warnings.append(f"the weights take {purse.taken:,} bytes, {more:,.0f} more than they may")

    def _realise(self, site: Site, pair: Pair | RefusalError, known: Known, offer: Offer, limit: float) -> None:
        """Prune and share one weight."""
        equations = None if isinstance(pair, RefusalError) else pair
        if offer.density < known.before * (1 - 1e-9):
            equations = self._prune(site, equations, offer.density)
        sharing = ShareWithin(
            limit=limit,
            width=offer.width,
            huffman=known.huffman,
            importance="none" if equations is None else "hessian",
            refit=equations is not None,
        )
        try:
            sharing.share_site(self.model, site, equations, Report(NAME))
        except RefusalError as refusal:
            if least(stored_as(site.array(), huffman=known.huffman)).nbytes > limit:
                self.report.warnings.append(f"{site.name}: not shared: {refusal}")

    def _prune(self, site: Site, pair: Pair | None, density: float) -> Pair | None:
        """Prune one weight; gives its equations with the bias that it has now."""
        intercept = None if pair is None else intercept_of(self.model, site)
        before = None if intercept is None else intercept.read(self.model)
        try:
            if pair is None:
                raise RefusalError("nothing is known of what it reads")
            PruneSecondOrder(sparsity=1 - density).prune_site(self.model, site, pair, 1 - density, Report(NAME))
        except RefusalError:
            self.model.replace_weight(site.weight, largest(site.array(), density))
        if pair is None or intercept is None or before is None:
            return pair
        moved = before - intercept.read(self.model)
        return Pair(pair.fit.shifted(moved), pair.held_out.shifted(moved)) if moved.any() else pair

    def _tell(self, site: Site, before: Array, nbytes: int, offer: Offer, pair: Pair | RefusalError) -> None:
        after = site.array()
        error = relative_error(before, after)
        if not error:
            self.report.skip(site.name, f"stays as it is: its {nbytes:,} bytes do less good elsewhere")
            return
        values = distinct(after, 1 << 16)
        told = [
            f"{1 - np.count_nonzero(after) / after.size:.1%} zeros",
            f"{'many' if values is None else values.size} values",
            f"{nbytes:,} bytes encoded, {8 * nbytes / after.size:.2f} bits a weight",
        ]
        if self.bench.feed is not None:
            told.append(f"outputs {decibels(offer.noise):.1f} dB from this alone, as predicted")
            if isinstance(pair, RefusalError):
                told.append(f"by the weights themselves: {pair}")
        self.report.change(
            site.name,
            ", ".join(told),
            bytes_before=site.nbytes,
            bytes_after=site.nbytes,
            error=error if math.isfinite(error) else None,
        )
