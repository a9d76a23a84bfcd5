"""How far off a layer is at each rank of each scheme, and what that does to the outputs of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxpress.passes.aims import Aim, shift_for
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.factorize.latency import Ladder
from onnxpress.passes.factorize.lookup import counts_of, metric_of
from onnxpress.passes.factorize.schemes.base import ChainFactors, ChainScheme
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import Layer, rows_of
from onnxpress.passes.factorize.schemes.lookup import LookupScheme
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.kernels.least_squares import error
from onnxpress.passes.kernels.tensor import DegenerateError
from onnxpress.passes.kernels.whitened import rank_errors
from onnxpress.passes.prune.trials import Altered, Trials, open_trials
from onnxpress.passes.report import Curve, Report
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

POINTS = 4
"""Ranks of a scheme that are tried where singular values do not tell the error at every rank."""

_TELLING = 0.01
"""Relative noise of a layer near which its effect on the outputs is tried: not drowned in rounding, not destroyed."""

_LEAST = 1e-12
"""Relative noise below which there is only rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the errors of one layer.

    Attributes:
        site: its weight.
        ladders: schemes and ranks to choose from.
        noise: Σ(y − y')² / Σy² of its outputs on samples held out, by scheme, at each rank.
        harm: relative noise of the model's outputs for relative noise of the layer's; NaN where it is not known.
    """

    site: Site
    ladders: tuple[Ladder, ...]
    noise: Mapping[str, Float64Array]
    harm: float

    def curve(self) -> Curve:
        """As the report has it: the least noise with which at least so much of the work goes."""
        points = [
            (1 - float(work), float(noise))
            for ladder in self.ladders
            for work, noise in zip(ladder.work, self.noise[ladder.scheme.name], strict=True)
        ]
        best: dict[float, float] = {}
        least = math.inf
        for gone, noise in sorted(points, reverse=True):
            least = min(least, noise)
            best[gone] = least
        ratios = sorted(best)
        return Curve(
            self.site.name,
            "multiply-adds",
            tuple(ratios),
            tuple(decibels(self.harm * best[each]) for each in ratios),
            "outputs",
        )


def measured(model: Model, ladders: Mapping[Site, Sequence[Ladder]], bench: Workbench, report: Report) -> list[Known]:
    """The errors of layers, each alone, and what they do to the outputs.

    Args:
        model: as it is.
        ladders: schemes and ranks, of each site.
        bench: brings the samples.
        report: takes the curves, and skips of sites whose inputs cannot be observed.

    Raises:
        FeedError: there are no samples.
    """
    found = []
    with open_trials(model, list(ladders), bench) as trials:
        for site, pair in equations(model, model, list(ladders), bench):
            try:
                if site.op == "Gather":
                    found.append(_looked_up(model, site, ladders[site], trials, bench))
                    continue
                if isinstance(pair, RefusalError):
                    raise pair
                found.append(_known(model, site, pair, ladders[site], trials, bench.seed))
            except (RefusalError, ValueError) as refusal:
                report.skip(site.name, str(refusal))
    harms = [each.harm for each in found if math.isfinite(each.harm)]
    usual = float(np.median(harms)) if harms else 1.0
    whole = [each if math.isfinite(each.harm) else replace(each, harm=usual) for each in found]
    report.curves.extend(each.curve() for each in whole)
    return whole


def _known(model: Model, site: Site, pair: Pair, ladders: Sequence[Ladder], trials: Trials, seed: int) -> Known:
    """The errors of one layer."""
    rows, bias = rows_of(site), intercept_of(model, site) is not None
    with threads_for(rows.shape[1]):
        layer = _Layer(site, pair, Aim.of(pair.fit, rows, math.inf, bias=bias), bias, seed)
        tried = {each.scheme.name: list(layer.tries(each)) for each in ladders}
    left = tuple(each for each in ladders if tried[each.scheme.name])
    if not left:
        raise RefusalError("has no factors that could be tried")
    noise = {each.scheme.name: layer.curve(each, tried[each.scheme.name]) for each in left}
    every = [attempt for each in left for attempt in tried[each.scheme.name]]
    telling = min(every, key=lambda each: abs(math.log(max(each.noise, _LEAST) / _TELLING)))
    return Known(site, left, noise, _harm(site, telling, trials))


def _looked_up(model: Model, site: Site, ladders: Sequence[Ladder], trials: Trials, bench: Workbench) -> Known:
    """The errors of a table, told by its singular values and put right by one rank on samples held out."""
    ladder, rows, counts = ladders[0], rows_of(site), counts_of(model, site, bench)
    metric = metric_of(counts.fit)
    with threads_for(min(rows.shape)):
        told = rank_errors(LookupScheme().values(site, rows, metric))[[rank for (rank,) in ladder.ranks]] ** 2
        number = int(np.argmin(np.abs(np.log(np.maximum(told, _LEAST) / _TELLING))))
        found = ladder.scheme.fit(site, rows, metric, ladder.ranks[number], bench.seed).dense()
    telling = _Attempt(number, found, None, counts.error(rows, found) ** 2)
    noise = np.maximum(told, _LEAST) * (max(telling.noise, _LEAST) / max(float(told[number]), _LEAST))
    return Known(site, (ladder,), {ladder.scheme.name: noise}, _harm(site, telling, trials))


def _harm(site: Site, attempt: _Attempt, trials: Trials) -> float:
    """What noise in a layer's outputs does to the model's, as a ratio; NaN where that cannot be measured."""
    if not trials.useful or not trials.takes(site.name) or not attempt.noise > _LEAST:
        return math.nan
    altered = Altered(Layer.of(site).from_rows(attempt.rows).astype(np.float32), attempt.shift)
    return trials.noise({site.name: altered}) / attempt.noise


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """One rank, tried.

    Attributes:
        number: of the rank in its ladder.
        rows: the weight that the factors stand for.
        shift: what the bias gains; None for nothing.
        noise: of the layer's outputs.
    """

    number: int
    rows: Float64Array
    shift: Float64Array | None
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One layer, and all that its factors are judged by."""

    site: Site
    pair: Pair
    aim: Aim
    bias: bool
    seed: int

    def tries(self, ladder: Ladder) -> Iterator[_Attempt]:
        """A few ranks: of those whose errors singular values tell, one that is telling."""
        if isinstance(ladder.scheme, ChannelScheme):
            told = self._told(ladder.scheme, ladder)
            numbers = [int(np.argmin(np.abs(np.log(np.maximum(told, _LEAST) / _TELLING))))]
        else:
            numbers = ladder.points(POINTS)
        for number in numbers:
            try:
                yield self._attempt(ladder, number)
            except (RefusalError, DegenerateError):
                continue

    def curve(self, ladder: Ladder, tried: Sequence[_Attempt]) -> Float64Array:
        """The noise at each rank: it only falls, and its logarithm is straight between those that were tried."""
        noise = np.array([max(each.noise, _LEAST) for each in tried])
        numbers = [each.number for each in tried]
        if isinstance(ladder.scheme, ChannelScheme):
            told = np.maximum(self._told(ladder.scheme, ladder), _LEAST)
            return np.asarray(told * (noise[0] / told[numbers[0]]))
        falling = np.maximum.accumulate(noise[::-1])[::-1]
        work = np.log(ladder.work[numbers])
        order = np.argsort(work, kind="stable")
        return np.asarray(np.exp(np.interp(np.log(ladder.work), work[order], np.log(falling)[order])))

    def _told(self, scheme: ChannelScheme, ladder: Ladder) -> Float64Array:
        """The noise at each rank of the samples that are fitted, by singular values."""
        squares = np.square(scheme.values(self.site, self.aim.target, self.aim.metric))
        behind = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
        energy = float(self.pair.fit.energy.sum()) or 1.0
        return np.asarray(behind[[rank for (rank,) in ladder.ranks]] / energy)

    def _attempt(self, ladder: Ladder, number: int) -> _Attempt:
        """The better of the factors nearest to the weight, and of where a fit to the outputs would start from."""
        found = [self._judged(number, rows) for rows in self._nearest(ladder, number)]
        return min(found, key=lambda each: each.noise)

    def _judged(self, number: int, rows: Array) -> _Attempt:
        shift = shift_for(self.pair.fit, rows, bias=self.bias)
        return _Attempt(number, rows, shift, error(self.pair.held_out, rows, shift) ** 2)

    def _metrics(self, scheme: ChainScheme) -> tuple[Array | None, ...]:
        """What makes the nearest factors differ; singular values under the metric are the best there is."""
        return (self.aim.metric,) if isinstance(scheme, ChannelScheme) else (self.aim.metric, None)

    def _nearest(self, ladder: Ladder, number: int) -> Iterator[Float64Array]:
        """What can be had without a fit that takes its time."""
        scheme, ranks, aim = ladder.scheme, ladder.ranks[number], self.aim
        if not isinstance(scheme, ChainScheme):
            yield scheme.fit(self.site, aim.target, aim.metric, ranks, self.seed).dense()
            return
        layer = Layer.of(self.site)
        form = scheme.form(layer, ranks)
        for metric in self._metrics(scheme):
            parts = [
                scheme.nearest(kernel, None if metric is None else metric[group], ranks, self.seed)
                for group, kernel in enumerate(layer.kernels(aim.target))
            ]
            shapes = [stage.shape(layer) for stage in form.stages]
            kernels = [
                np.concatenate([np.asarray(part[index]).reshape(shape) for part in parts])
                for index, shape in enumerate(shapes)
            ]
            yield ChainFactors(form, tuple(kernels)).dense()
