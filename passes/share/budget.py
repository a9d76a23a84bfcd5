"""How sparse each weight becomes and how many bits its values get, so that a file of some size loses least."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import decibels, relative_error
from onnxpress.passes.kernels.packing import distinct
from onnxpress.passes.prune.trials import open_trials
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.prune.zeros.targets import is_sparsity
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    RefusalError,
    SitePass,
    check_count,
    check_exactly_one,
    check_flag,
    is_number,
    wrong,
)
from onnxpress.passes.share.coder import ShareWithin
from onnxpress.passes.share.measuring import Grid, by_layer, by_weight, largest
from onnxpress.passes.share.offers import Known, Offer, Purse
from onnxpress.passes.share.stored import least, refusals, rest_of, stored_as
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_LOAD, _LOAD_WEIGHT = 1 << 31, 16
"""What loading may take, as `encode` has it."""

_TRIALS = 48
"""Runs of the model by which weights are judged, at most; but one of each weight."""

_CODED = 450
"""Bytes of memory that loading a weight takes whose values have Huffman codes, of four bits about."""


@dataclass(frozen=True, kw_only=True)
class ShareBudget(SitePass):
    """Prune and share weights together for a file of a given size: zeros and fewer bits go where they harm least.

    For each weight, some of its outputs are pruned by second order at several sparsities and get values for codes of
    several widths. What each takes in the encoded file is known from the estimates of `encode`; what it does to the
    layer from second moments of samples held out; what that does to the outputs of the model is measured. The bytes
    are then shared out at the least sum of errors (Everett, 1963; Shoham and Gersho, 1988), and layers are pruned,
    shared and refitted one after another, each to what the original gave, of what the layers before it now give. What
    one takes less or more than was expected goes to those behind. The weights stay dense arrays; put `encode` behind.

    Without samples the error of each weight counts, ‖W − W'‖² / ‖W‖², the largest weights stay, and nothing is
    refitted.

    Attributes:
        bytes: the whole file is to take after `encode`; exactly one of `bytes`, `ratio` and `bits`.
        ratio: how many times smaller the weights that are worked on become, with all that decodes them.
        bits: of these weights on average, in the same way.
        sparsities: at which weights are tried, each in [0, 1); what lies between them may be chosen, too.
        widths: bits of a code at which the values of weights that stay are tried, each 1 to 8.
        huffman: whether `encode` may use Huffman codes; without them each weight gets 2^bits values.
        max_load_bytes: as in `encode`: memory that loading may take beyond what the dense model takes. Huffman codes
            take most, so the smallest weights have them, as many as there is memory for. None: 2 GiB, or 16 bytes a
            weight where that is more.
        min_size: weights with fewer elements are left alone.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too.
    """

    name: ClassVar[str] = "share-budget"
    learns: ClassVar[bool] = True
    bytes: int | None = None
    ratio: float | None = None
    bits: float | None = None
    sparsities: tuple[float, ...] = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98)
    widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    huffman: bool = True
    max_load_bytes: int | None = None
    min_size: int = 256
    vary: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("bytes", "ratio", "bits"))
        if self.bytes is not None:
            check_count(self, "bytes")
        if self.ratio is not None and not (is_number(self.ratio) and 1 <= self.ratio < math.inf):
            raise wrong(self, "ratio", "be a number of at least 1")
        if self.bits is not None and not (is_number(self.bits) and 0 < self.bits <= 32):
            raise wrong(self, "bits", "lie in (0, 32]")
        for field, fits, what in (
            ("sparsities", is_sparsity, "list sparsities in [0, 1)"),
            ("widths", lambda each: type(each) is int and 1 <= each <= 8, "list whole numbers from 1 to 8"),
        ):
            given = getattr(self, field)
            if not isinstance(given, list | tuple) or not given or not all(map(fits, given)):
                raise wrong(self, field, what)
            object.__setattr__(self, field, tuple(sorted(set(given))))
        if self.max_load_bytes is not None:
            check_count(self, "max_load_bytes", least=0)
        check_flag(self, "huffman")
        check_flag(self, "vary")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune and share every site that fits the options.

        Raises:
            ConfigError: the target cannot be met; says what can.
        """
        report = self.report()
        if bench.feed is None:
            report.warnings.append("no samples: weights are judged by their own errors; give some with --data")
        elif self.vary:
            bench = with_varied(model, bench, report)
        sites = self.candidates(model, report)
        refused = refusals(model, sites)
        for site in sites:
            if site.name in refused:
                report.skip(site.name, f"encode leaves it as it is: {refused[site.name]}")
        known = list(self._measured(model, [each for each in sites if each.name not in refused], bench, report))
        if known:
            rest = rest_of(model, [each.site for each in known], huffman=self.huffman)
            _Work(self, model, bench, report, known).run(self._purse(known, rest, model.opset))
        return report

    def _measured(self, model: Model, sites: Sequence[Site], bench: Workbench, report: Report) -> Iterator[Known]:
        """What is known of each weight."""
        grid = Grid(sparsities=self.sparsities, widths=self.widths, huffman=self.huffman)
        grid = replace(grid, points=min(grid.points, max(1, _TRIALS // max(1, len(sites)))))
        light, found = self._light(sites), []
        with open_trials(model, sites, bench) if bench.feed else nullcontext() as trials:
            for site, pair in _layers(model, model, sites, bench):
                grid = replace(grid, huffman=site.name in light)
                try:
                    if trials is None or isinstance(pair, RefusalError):
                        found.append(by_weight(site, grid, trials))
                    else:
                        found.append(by_layer(model, site, pair, grid, trials))
                except RefusalError as refusal:
                    report.skip(site.name, str(refusal))
        ratios = [ratio for each in found for _, ratio in each.harms]
        usual = ((1.0, float(np.median(ratios))),) if ratios else ()
        for each in found:
            whole = each if each.harms else replace(each, harms=usual)
            report.curves.append(whole.curve())
            yield whole

    def _light(self, sites: Sequence[Site]) -> set[str]:
        """Names of the weights that may have Huffman codes."""
        if not self.huffman:
            return set()
        most = self.max_load_bytes
        if most is None:
            most = max(_LOAD, _LOAD_WEIGHT * sum(site.size for site in sites))
        ranked = sorted(sites, key=lambda site: site.size)
        load = np.cumsum([_CODED * site.size for site in ranked])
        return {site.name for site, each in zip(ranked, load, strict=True) if each <= most}

    def _purse(self, known: Sequence[Known], rest: int, opset: int) -> Purse:
        """What all weights may take.

        Raises:
            ConfigError: the weights cannot be made so small.
        """
        weights, dense = sum(each.site.size for each in known), sum(each.dense for each in known)
        if self.bytes is not None:
            purse = Purse(known, self.bytes - rest, opset)
            wish, can = (
                f"bytes {self.bytes:,}",
                f"{rest + purse.least:,}, of which the rest of the model takes {rest:,}",
            )
        elif self.ratio is not None:
            purse = Purse(known, dense / self.ratio, opset)
            wish, can = f"ratio {self.ratio:g}", f"{dense / purse.least:.4g}"
        else:
            purse = Purse(known, weights * (self.bits or 0) / 8, opset)
            wish, can = f"bits {self.bits:g}", f"{8 * purse.least / weights:.4g}"
        if purse.least > purse.budget:
            raise ConfigError(f"{self.name}: {wish} cannot be met; with these sparsities and widths the least is {can}")
        return purse


def _layers(
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
class _Work:
    """Carries out what was shared out."""

    owner: ShareBudget
    model: Model
    bench: Workbench
    report: Report
    known: Sequence[Known]

    def run(self, purse: Purse) -> None:
        """Prune and share all weights, one after another."""
        known = {each.site.name: each for each in self.known}
        original = self.model.clone()
        for site, pair in _layers(self.model, original, [each.site for each in self.known], self.bench):
            offer, limit = purse.offer(site.name)
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
            sharing.share_site(self.model, site, equations, Report(self.owner.name))
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
            PruneSecondOrder(sparsity=1 - density).prune_site(
                self.model, site, pair, 1 - density, Report(self.owner.name)
            )
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
