"""Prunes and shares weights one after another, each within what the ones before have left over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import decibels, relative_error
from onnxpress.passes.kernels.least_squares import solve
from onnxpress.passes.kernels.obs import alternate
from onnxpress.passes.kernels.packing import distinct
from onnxpress.passes.prune.zeros.criteria import Criterion, Problem
from onnxpress.passes.prune.zeros.layers import Layer
from onnxpress.passes.prune.zeros.patterns import Form, Unstructured
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.report import Report
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.share.coder import ShareWithin
from onnxpress.passes.share.measuring import largest
from onnxpress.passes.share.offers import Known, Offer, Purse
from onnxpress.passes.share.stored import least, stored_as
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

NAME = "share-budget"

_PACE, _SPARSE = 2, 0.5
"""Rounds of `alternate` with one penalty where fewer weights stay than that; elsewhere one will do."""

_LARGE = 1 << 26
"""Weights times inputs above which no other damping is looked for than that of the outputs that were measured, and the
weights that stay are not refitted: that takes long and gains less than 0.1 dB."""


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


def thinned(model: Model, site: Site, pair: Pair, density: float, *, damping: float) -> Pair:
    """Prune a weight by its equations, which the weights that stay and the bias make up for.

    Args:
        model: holds the weight.
        site: of the weight.
        pair: its equations.
        density: part that stays.
        damping: of the second moments, as a part of their diagonal.

    Returns:
        The equations with the bias that the layer has then.

    Raises:
        RefusalError: they cannot be solved.
    """
    criterion, layout = Criterion("alps", Unstructured(), Form.of(site)), Layout.of(site)
    layer, intercept = Layer.of(model, site, pair, criterion, reconstruct=True), intercept_of(model, site)
    try:
        with threads_for(layer.weight.shape[1]):
            total = pair.total
            posed = Problem.of(total, layer.weight, biased=layer.biased)
            pace = _PACE if density < _SPARSE else 1
            dense, axes = posed.dense(damping), posed.axes.damped(damping)
            found = alternate(dense, axes, criterion.select, sparsity=1 - density, pace=pace)
            shift = solve(total, found.weight, ridge=math.inf, bias=True)[1] if layer.biased else None
    except ValueError as failure:
        raise RefusalError(str(failure)) from failure
    before = None if intercept is None else intercept.read(model)
    model.replace_weight(site.weight, narrowed(layout.from_rows(found.weight), site.weight.dtype))
    if shift is not None and intercept is not None:
        intercept.add(model, shift)
    if intercept is None or before is None:
        return pair
    moved = before - intercept.read(model)
    return Pair(pair.fit.shifted(moved), pair.held_out.shifted(moved))


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

    def _realise(self, site: Site, pair: Pair | RefusalError, known: Known, offer: Offer, limit: float) -> None:
        """Prune and share one weight."""
        equations = None if isinstance(pair, RefusalError) else pair
        if offer.density < known.before * (1 - 1e-9):
            equations = self._prune(site, equations, offer.density, known.damping)
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

    def _prune(self, site: Site, pair: Pair | None, density: float, damping: float) -> Pair | None:
        """Prune one weight; gives its equations with the bias that it has now."""
        if pair is not None:
            with suppress(RefusalError):  # the largest will do
                if site.size * pair.fit.moment.shape[-1] > _LARGE:
                    return thinned(self.model, site, pair, density, damping=damping)
                return self._searched(site, pair, density)
        self.model.replace_weight(site.weight, largest(site.array(), density))
        return pair

    def _searched(self, site: Site, pair: Pair, density: float) -> Pair:
        """Prune one weight with the damping and the ridge that samples held out find best."""
        intercept = intercept_of(self.model, site)
        before = None if intercept is None else intercept.read(self.model)
        PruneSecondOrder(sparsity=1 - density).prune_site(self.model, site, pair, 1 - density, Report(NAME))
        if intercept is None or before is None:
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
