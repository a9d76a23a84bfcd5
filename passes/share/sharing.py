"""Weights that are measured once, to be pruned and shared for one size after another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from onnxpress.passes.base import PassResult, Workbench
from onnxpress.passes.encode.budget import load_limit
from onnxpress.passes.encode.loads import HUFFMAN_TIME
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.prune.trials import Altered, open_trials
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.judging import Whole
from onnxpress.passes.share.measuring import Grid, by_layer, by_weight
from onnxpress.passes.share.offers import Known, Offer, Purse
from onnxpress.passes.share.realising import NAME, Work, layers
from onnxpress.passes.share.stored import rest_of
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

_TRIALS = 48
"""Runs of the model by which weights are judged, at most; but one of each weight."""

_SHOWN = 4
"""Samples that are enough for each of them, in so many batches at most."""

_CODED, _CODED_TIME = 450, 0.35e-6
"""Bytes of memory and seconds that loading a weight takes whose values have Huffman codes, of four bits about."""

_PLAIN_TIME = 25e-9
"""Seconds of one with codes of whole bits."""

_OVER = 1e-3
"""Of the budget: weights that take so much more are shared out once more."""

_FAR = 2.0
"""So many times the predicted noise is far from it."""

_ONCE = 30.0
"""What a second look may change a prediction by."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What is tried of weights, whatever the size; as `ShareBudget` has it."""

    sparsities: tuple[float, ...]
    widths: tuple[int, ...]
    huffman: bool
    max_load_bytes: int | None
    max_load_seconds: float | None
    vary: bool

    def light(self, sites: Sequence[Site]) -> set[str]:
        """Names of the weights that may have Huffman codes: the smallest, as long as loading holds its limits."""
        if not self.huffman:
            return set()
        ranked = sorted(sites, key=lambda site: site.size)
        count = np.cumsum([site.size for site in ranked], dtype=np.float64)
        fits = _CODED * count <= load_limit(self.max_load_bytes, sum(site.size for site in sites))
        if self.max_load_seconds is not None and len(ranked):
            streams = 2 * HUFFMAN_TIME * np.arange(1, len(ranked) + 1)
            fits &= _CODED_TIME * count + streams + _PLAIN_TIME * (count[-1] - count) <= self.max_load_seconds
        return {site.name for site, each in zip(ranked, fits, strict=True) if each}


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A model of one size, with what was chosen and what its outputs lost, as far as that is known."""

    model: Model
    report: Report
    offers: Mapping[str, Offer]
    noise: float | None

    @property
    def predicted(self) -> float:
        """What was to be lost."""
        return math.fsum(each.noise for each in self.offers.values())


def _some(bench: Workbench) -> Workbench:
    """The bench with a few of its samples, which tell what noise of a layer does to the outputs."""
    feed = bench.feed
    if feed is None:
        return bench
    first = max((len(each) for each in next(iter(feed), {}).values() if each.ndim), default=1)
    count = math.ceil(_SHOWN / max(1, first))
    few = feed.count is not None and feed.count <= count
    return bench if few else replace(bench, feed=feed.take(count) if feed.count is None else feed.split(count)[0])


class Sharing:
    """What is known of the weights of a model, and models of any size made with it.

    Attributes:
        measured: what was measured of each weight.
    """

    def __init__(self, tried: Tried, model: Model, sites: Sequence[Site], bench: Workbench, report: Report) -> None:
        """Measure all weights, which takes longest.

        Args:
            tried: what of.
            model: is not changed, and must not be as long as this is used.
            sites: of the model.
            bench: brings the samples.
            report: takes skips, warnings and curves; a copy goes into each result.
        """
        self._tried, self._model, self._report = tried, model, report
        if bench.feed is None:
            report.warnings.append("no samples: weights are judged by their own errors; give some with --data")
        elif tried.vary:
            bench = with_varied(model, bench, report)
        self._bench = bench
        self.measured: tuple[Known, ...] = tuple(self._measured(sites))
        known = [each.site for each in self.measured]
        self._rest = rest_of(model, known, huffman=tried.huffman) if known else 0
        self._whole: Whole | None = None

    @property
    def least_bytes(self) -> int:
        """The smallest file that can be asked for."""
        return self._rest + (Purse(self.measured, 0, self._model.opset).least if self.measured else 0)

    def at(self, *, bytes: int | None = None, ratio: float | None = None, bits: float | None = None) -> PassResult:
        """The model for one size, with its report; measures nothing anew.

        Args:
            bytes: of the file; exactly one of the three.
            ratio: as `ShareBudget` has it.
            bits: the same.

        Raises:
            ConfigError: the target cannot be met; says what can.
        """
        began = time.perf_counter()
        if not self.measured:
            return PassResult(self._model.clone(), self._copied())
        budget = self._purse(self.measured, bytes, ratio, bits).budget
        made = self._made(self.measured, budget)
        if made.noise is not None and made.noise > _FAR * made.predicted:
            known = self._corrected(made)
            again = self._made(known, budget)
            made = min(made, again, key=lambda each: (len(each.report.warnings), each.noise))
        if made.noise is not None:
            said = (
                f"outputs {decibels(made.noise):.1f} dB on samples held out, {decibels(made.predicted):.1f} predicted"
            )
            made.report.notes.append(said)
        made.report.seconds = time.perf_counter() - began
        return PassResult(made.model, made.report)

    def _made(self, known: Sequence[Known], budget: float) -> _Made:
        """A model of one size; where the last weights find too little left, one that aims at a little less."""
        aim = budget
        for final in (False, True):
            model, report, purse = self._model.clone(), self._copied(), Purse(known, aim, self._model.opset)
            work = Work(model, self._model, self._bench, report, known)
            work.run(purse)
            more = purse.taken - budget
            if more <= _OVER * budget or final:
                break
            aim -= 2 * more
        if more > 0:
            report.warnings.append(f"the weights take {purse.taken:,} bytes, {more:,.0f} more than they may")
        return _Made(model, report, work.offers, self._noise(model))

    def _copied(self) -> Report:
        known = self._report
        return replace(
            known,
            changes=list(known.changes),
            skips=list(known.skips),
            warnings=list(known.warnings),
            notes=list(known.notes),
            curves=list(known.curves),
        )

    def _noise(self, model: Model) -> float | None:
        """What the outputs lost on samples held out; None where that cannot be told."""
        if self._bench.feed is None:
            return None
        if self._whole is None:
            self._whole = Whole(self._model, self._bench)
        found = self._whole.noise(model) if self._whole.useful else math.nan
        return found if math.isfinite(found) else None

    def _corrected(self, made: _Made) -> list[Known]:
        """What is known of each weight, with the harm that what became of it does alone."""
        sites = {site.name: site for site in find_sites(made.model)}
        found = []
        with open_trials(self._model, [each.site for each in self.measured], self._bench) as trials:
            for each in self.measured:
                name, offer = each.site.name, made.offers[each.site.name]
                factor = 1.0
                if trials.useful and trials.takes(name) and offer.noise > 0:
                    factor = trials.noise({name: self._altered(made.model, each.site, sites[name])}) / offer.noise
                factor = min(max(factor, 1 / _ONCE), _ONCE) if math.isfinite(factor) else _ONCE
                harms = tuple((noise, factor * ratio) for noise, ratio in each.harms) or ((1.0, factor),)
                found.append(replace(each, harms=harms))
        return found

    def _altered(self, model: Model, site: Site, now: Site) -> Altered:
        """What became of a weight and its bias."""
        before, after = intercept_of(self._model, site), intercept_of(model, now)
        if before is None or after is None:
            return Altered(now.array(), None)
        return Altered(now.array(), after.read(model) - before.read(self._model))

    def _measured(self, sites: Sequence[Site]) -> Iterator[Known]:
        """What is known of each weight."""
        grid = Grid(sparsities=self._tried.sparsities, widths=self._tried.widths, huffman=self._tried.huffman)
        grid = replace(grid, points=min(grid.points, max(1, _TRIALS // max(1, len(sites)))))
        light, found, model = self._tried.light(sites), [], self._model
        with open_trials(model, sites, _some(self._bench)) if self._bench.feed else nullcontext() as trials:
            for site, pair in layers(model, model, sites, self._bench):
                grid = replace(grid, huffman=site.name in light)
                try:
                    if trials is None or isinstance(pair, RefusalError):
                        found.append(by_weight(site, grid, trials))
                    else:
                        found.append(by_layer(model, site, pair, grid, trials))
                except RefusalError as refusal:
                    self._report.skip(site.name, str(refusal))
        ratios = [ratio for each in found for _, ratio in each.harms]
        usual = ((1.0, float(np.median(ratios))),) if ratios else ()
        for each in found:
            whole = each if each.harms else replace(each, harms=usual)
            self._report.curves.append(whole.curve())
            yield whole

    def _purse(self, known: Sequence[Known], nbytes: int | None, ratio: float | None, bits: float | None) -> Purse:
        """What all weights may take.

        Raises:
            ConfigError: the weights cannot be made so small.
        """
        weights, dense = sum(each.site.size for each in known), sum(each.dense for each in known)
        rest, opset = self._rest, self._model.opset
        if nbytes is not None:
            purse = Purse(known, nbytes - rest, opset)
            wish = f"bytes {nbytes:,}"
            can = f"{rest + purse.least:,}, of which the rest of the model takes {rest:,}"
        elif ratio is not None:
            purse = Purse(known, dense / ratio, opset)
            wish, can = f"ratio {ratio:g}", f"{dense / purse.least:.4g}"
        else:
            purse = Purse(known, weights * (bits or 0) / 8, opset)
            wish, can = f"bits {bits:g}", f"{8 * purse.least / weights:.4g}"
        if purse.least > purse.budget:
            raise ConfigError(f"{NAME}: {wish} cannot be met; with these sparsities and widths the least is {can}")
        return purse
