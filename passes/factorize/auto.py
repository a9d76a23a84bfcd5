"""Schemes and ranks for all layers together, by measured errors and measured latencies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.curves import measured
from onnxpress.passes.factorize.inplace import InPlace, timed
from onnxpress.passes.factorize.latency import Ladder, Timings, as_is
from onnxpress.passes.factorize.merge import merge_chains
from onnxpress.passes.factorize.offers import Market, by_bytes, by_seconds
from onnxpress.passes.factorize.prospects import cut, ladders_of, parted, timings_of
from onnxpress.passes.factorize.schemes import SCHEMES
from onnxpress.passes.factorize.search import Search
from onnxpress.passes.pace import Pace
from onnxpress.passes.quantize.precision import Demand, Judge
from onnxpress.passes.quantize.rehearsal import rehearsed
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    SitePass,
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    check_fraction,
    is_number,
    wrong,
)
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

_NAMES = tuple(scheme.name for scheme in SCHEMES)

_SECONDS = 6.0
"""For timing the result beside the original, on each provider."""


_LITTLE = "stays: what its chains would gain is little for the noise they add"


@dataclass(frozen=True, kw_only=True)
class Factorize(SitePass):
    """Choose a scheme and ranks for every layer, so that a target of the whole model is met at the least cost.

    Of each layer the error of its outputs is known at every rank of every scheme: from singular values of the whitened
    weight, else from a few ranks and what lies between them. What such an error does to the outputs of the model is
    measured, and so is the time that each chain takes alone, with the shapes that the layer reads. Noises add up, and
    so do gains: the choice is a knapsack. Chosen chains are timed in the whole model, and stay only where they make it
    faster. Then all are fitted to samples, layer by layer, and the result is judged by samples held out; where it
    misses the target, or is better than it must be, another budget is tried. Last the model is timed beside the
    original. What is slower than the original is never the result.

    Attributes:
        min_sqnr: as fast as can be with so many dB of signal to noise at every output of the model, on samples held
            out; exactly one of `min_sqnr`, `speedup`, `max_drop` and `ratio`.
        speedup: the least noise with which the model is so many times as fast.
        max_drop: as fast as can be while the metric falls by so much at most, on samples held out.
        ratio: in (0, 1]: the least noise with which this fraction of the parameters is left; where size is the goal.
        goal: `latency`, or `size`: what is to be gained.
        schemes: to choose from: `svd`, `channel`, `spatial`, `tucker`, `cp`, `train`, `separable`, `groups`,
            and, where size is the goal, `lookup` for embeddings.
        arithmetic: `float`, or `int8` where `quantize-static` follows: layers, chains and the model are then timed as
            it leaves them on this machine, for what is faster in float may be slower on codes.
        batch_size: rows of the batches that are timed; None for batches as the samples have them.
        time_limit: seconds after which no other budget is tried; None for no limit.
        refit: layers behind chains get weights that make up for these, where that does better on samples held out, and
            so do chains; off for samples unlike what the model will see.
        nonlinear: with `refit`, chains are fitted to what a Relu, Clip, LeakyRelu, PRelu or maxout makes of them, as
            by `factorize-svd`.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too.
    """

    name: ClassVar[str] = "factorize"
    learns: ClassVar[bool] = True
    min_sqnr: float | None = None
    speedup: float | None = None
    max_drop: float | None = None
    ratio: float | None = None
    goal: Literal["latency", "size"] = "latency"
    schemes: tuple[str, ...] = _NAMES
    arithmetic: Literal["float", "int8"] = "float"
    batch_size: int | None = None
    time_limit: float | None = None
    refit: bool = True
    nonlinear: bool = False
    vary: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("min_sqnr", "speedup", "max_drop", "ratio"))
        check_choice(self, "goal", ("latency", "size"))
        check_choice(self, "arithmetic", ("float", "int8"))
        for field, least in (("min_sqnr", 0.0), ("speedup", 1.0), ("time_limit", 0.0)):
            value = getattr(self, field)
            if value is not None and not (is_number(value) and least < value < math.inf):
                raise wrong(self, field, f"be a number above {least:g}")
        if self.max_drop is not None and not (is_number(self.max_drop) and 0 <= self.max_drop < math.inf):
            raise wrong(self, "max_drop", "be a number that is not negative")
        if self.ratio is not None:
            check_fraction(self, "ratio")
        self._check_goal()
        given = self.schemes
        if not isinstance(given, list | tuple) or not given or not all(each in _NAMES for each in given):
            raise wrong(self, "schemes", f"list some of {', '.join(_NAMES)}")
        object.__setattr__(self, "schemes", tuple(given))
        if self.batch_size is not None:
            check_count(self, "batch_size")
        check_flag(self, "refit")
        check_flag(self, "nonlinear")
        check_flag(self, "vary")

    def _check_goal(self) -> None:
        if self.goal == "size" and self.speedup is not None:
            raise ConfigError(f"{self.name}: speedup {self.speedup:g} is for goal latency; give ratio for goal size")
        if self.goal == "latency" and self.ratio is not None:
            raise ConfigError(f"{self.name}: ratio {self.ratio:g} is for goal size; give speedup for goal latency")
        if self.goal == "latency" and self.schemes in (("lookup",), ["lookup"]):
            raise ConfigError(f"{self.name}: scheme lookup is for goal size; nothing makes a look-up faster")

    @property
    def times(self) -> bool:
        """See `Pass.times`."""
        return self.goal == "latency"

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Factorize what pays.

        Raises:
            FeedError: there are no samples.
            ConfigError: `max_drop` without a metric.
        """
        if bench.feed is None:
            raise FeedError("ranks by budget are chosen on samples; give some with --data")
        if self.max_drop is not None and bench.metric is None:
            raise ConfigError(f"{self.name}: max_drop {self.max_drop:g} needs a metric: give top1 or module:function")
        report = self.report()
        _Work(self, model, bench, report).run()
        return report


class _Work:
    """One run of the pass."""

    def __init__(self, owner: Factorize, model: Model, bench: Workbench, report: Report) -> None:
        self._owner, self._model, self._report = owner, model, report
        self._began = time.perf_counter()
        teach, self._judging = parted(bench, report)
        self._bench = with_varied(model, teach, report) if owner.vary else teach
        self._timing = replace(bench, feed=cut(bench, owner.batch_size))
        self._timed_as = rehearsed if owner.arithmetic == "int8" else as_is

    def run(self) -> None:
        """Choose, fit, judge, time; every candidate ends in the report."""
        owner, report = self._owner, self._report
        sites = owner.candidates(self._model, report)
        smaller = owner.goal == "size"  # what is looked up is never faster by a product
        names = [each for each in owner.schemes if smaller or each != "lookup"]
        ladders = ladders_of(self._model, sites, names, report)
        timings = self._timings(ladders) if owner.goal == "latency" else {}
        known = measured(self._model, ladders, self._bench, report) if ladders else []
        offers = {each.site.name: by_seconds(each, timings[each.site]) if timings else by_bytes(each) for each in known}
        whole = sum(each.dense for each in timings.values()) if timings else sum(each.site.nbytes for each in known)
        demand = Demand(min_sqnr=owner.min_sqnr or 0.0, max_drop=owner.max_drop)
        place = InPlace(self._model, self._timing, self._ended, self._timed_as) if timings else None
        refitted = [site.name for site in sites] if owner.refit else None
        with Judge(self._model, self._judging, demand) as judge:
            market, bench = Market(offers), self._bench
            search = Search(self._model, market, place, judge, bench, self._ended, refitted, owner.nonlinear)
            self._search(search, demand, whole)
        if search.best is not None:
            before = [site.name for site in find_sites(self._model)]
            allowed = [site.name for site in sites]
            merge_chains(search.best.model, search.best.report, before=before, allowed=allowed)
        reasons = self._finish(search)
        told = {skip.site for skip in report.skips} | {change.site for change in report.changes}
        for name in (site.name for site in sites):
            if name not in told:
                report.skip(name, reasons(name))

    def _timings(self, ladders: dict[Site, list[Ladder]]) -> dict[Site, Timings]:
        return timings_of(self._model, ladders, self._timing, self._report, timed_as=self._timed_as)

    def _search(self, search: Search, demand: Demand, whole: float) -> None:
        """Look for the target.

        Args:
            search: knows what is on offer.
            demand: on the outputs; empty where the target is another.
            whole: seconds, or bytes, that all layers take.
        """
        owner = self._owner
        if owner.speedup is not None:
            search.fast_enough(owner.speedup, whole)
        elif owner.ratio is not None:
            search.small_enough((1 - owner.ratio) * whole)
        else:
            search.good_enough(demand)

    def _ended(self) -> bool:
        limit = self._owner.time_limit
        return limit is not None and time.perf_counter() - self._began > limit

    def _finish(self, search: Search) -> Callable[[str], str]:
        """Put the best result into the model, if it is no slower, and tell of it; gives reasons why others stay."""
        report, made = self._report, search.best
        if made is None:
            why = _nothing(search)
            return lambda name: _stays(name, search) or why
        pair = [self._timed_as(each) for each in (self._model, made.model)]
        after = timed(pair[0], pair[1], self._timing, seconds=_SECONDS)
        if after.slower:
            taken_back = f"taken back: the factorized model is {after.describe('before')}"
            return lambda name: taken_back if name in made.choice else _stays(name, search) or _LITTLE
        changed = {change.site for change in made.report.changes}
        report.skips[:] = [skip for skip in report.skips if skip.site not in changed]
        report.changes.extend(made.report.changes)
        self._tell(search, after)
        self._model.reset(made.model.skeleton())
        return lambda name: made.refused.get(name) or _stays(name, search) or _LITTLE

    @property
    def _before(self) -> str:
        return "before, both on codes of 8 bits" if self._owner.arithmetic == "int8" else "before"

    def _tell(self, search: Search, after: Pace) -> None:
        owner, report, verdict = self._owner, self._report, search.verdict
        quality = "" if verdict is None else f"; outputs on samples held out: {verdict.describe()}"
        report.notes.append(f"the factorized model is {after.describe(self._before)}{quality}")
        if owner.speedup is not None and after.speedup < owner.speedup:
            report.warnings.append(
                f"speedup {owner.speedup:g} was not reached: {after.describe('before')}; allow more schemes or sites"
            )


def _stays(name: str, search: Search) -> str | None:
    """Why a site stays, where something is known of it."""
    known = {} if search.place is None else search.place.refused
    refused = [f"'{scheme}': {why}" for (site, scheme), why in known.items() if site == name]
    return "taken back: " + "; ".join(refused) if refused else None


def _nothing(search: Search) -> str:
    """Why there is no result."""
    if not search.verdicts:
        return "stays: no chain makes the whole model faster by what its noise is worth"
    tried = ", ".join(verdict.describe() for verdict in search.verdicts.values())
    return f"stays: no choice of chains met the target; tried: {tried}"
