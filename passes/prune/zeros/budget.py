"""How sparse each layer becomes, so that all of them together are as sparse as asked and the outputs suffer least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import equations
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.kernels.allocation import Option, allocate
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.kernels.saliency import magnitude, obd
from onnxpress.passes.prune.trials import Altered, Trials, open_trials
from onnxpress.passes.prune.zeros.criteria import Criterion
from onnxpress.passes.prune.zeros.layers import Attempt, Layer
from onnxpress.passes.prune.zeros.targets import Aim
from onnxpress.passes.report import Curve, Report
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

Allocation = Literal["error", "uniform", "global"]
ALLOCATIONS: tuple[Allocation, ...] = ("error", "uniform", "global")

_POINTS = 7
"""Densities at which the error of a layer is measured."""

_DENSEST = 0.9
_SPARSEST = 1 / 8
"""Of the densities that are tried: the highest, and the lowest as a part of what is asked of all layers together."""

_STEPS = 120
"""Sparsities to choose from."""


@dataclass(frozen=True, slots=True)
class Pruner:
    """What the layers are pruned with.

    Attributes:
        criterion: of one site.
        reconstruct: whether what stays is refitted.
    """

    criterion: Callable[[Site], Criterion]
    reconstruct: bool


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What is known of one layer.

    Attributes:
        site: its weight.
        densities: fractions that stay, ascending.
        noise: Σ of squared errors of its outputs over Σ of their squares, at each density.
        harm: relative noise of the model's outputs for relative noise of the layer's.
    """

    site: Site
    densities: Float64Array
    noise: Float64Array
    harm: float

    def predicted(self, density: Float64Array) -> Float64Array:
        """Noise of the model's outputs; between two densities its logarithm is straight over theirs."""
        floor = max(float(self.noise.max()), 1e-30) * 1e-12
        logs = np.interp(np.log(density), np.log(self.densities), np.log(np.maximum(self.noise, floor)))
        last = float(self.densities[-1])
        end = np.clip((1 - density) / (1 - last), 0, 1)
        return np.asarray(self.harm * np.where(density > last, end * self.noise[-1], np.exp(logs)))

    def curve(self) -> Curve:
        """As the report has it."""
        ratios = tuple(float(1 - density) for density in self.densities[::-1])
        noise = self.harm * self.noise[::-1]
        return Curve(self.site.name, "sparsity", ratios, tuple(map(decibels, noise)), "outputs")


def shares(
    model: Model, aim: Aim, pruner: Pruner, allocation: Allocation, bench: Workbench, report: Report
) -> dict[Site, float]:
    """The sparsity of each site of an aim.

    Args:
        model: as it is.
        aim: sites and the sparsity that is asked of them together.
        pruner: what they are pruned with.
        allocation: `uniform` gives all of them the same; `global` lets the weights that matter least go, wherever they
            are; `error` weighs the measured error of each layer, and what that does to the outputs of the model.
        bench: brings the samples.
        report: takes the curves, and skips of sites that cannot be judged.

    Raises:
        FeedError: there are no samples.
    """
    if allocation == "uniform" or aim.sparsity == 0:
        return dict.fromkeys(aim.sites, aim.sparsity)
    if allocation == "global":
        known = list(_alone(model, aim, pruner, bench, report))
    else:
        with open_trials(model, aim.sites, bench) as trials:
            known = list(_measured(model, aim, pruner, trials, bench, report))
        typical = [each.harm for each in known if math.isfinite(each.harm)]
        usual = float(np.median(typical)) if typical else 1.0
        known = [each if math.isfinite(each.harm) else replace(each, harm=usual) for each in known]
        report.curves.extend(each.curve() for each in known)
    return _shared(known, aim.sparsity)


def _shared(known: Sequence[Budget], sparsity: float) -> dict[Site, float]:
    """Share out what goes; the layer with most weights makes up for rounding."""
    if not known:
        return {}
    least = min(float(each.densities[0]) for each in known)
    density = np.unique(np.concatenate([np.geomspace(least, 1, _STEPS), np.linspace(least, 1, _STEPS)]))
    options = []
    for each in known:
        allowed = density[density >= each.densities[0] * (1 - 1e-9)]
        noise = each.predicted(allowed)
        options.append([Option(float((1 - d) * each.site.size), float(n)) for d, n in zip(allowed, noise, strict=True)])
    total = sparsity * sum(each.site.size for each in known)
    chosen = [each[number].amount for each, number in zip(options, allocate(options, total), strict=True)]
    surplus = sum(chosen) - total
    largest = int(np.argmax(chosen))
    chosen[largest] = max(0.0, chosen[largest] - surplus)
    return {each.site: amount / each.site.size for each, amount in zip(known, chosen, strict=True)}


def _densities(sparsity: float) -> Float64Array:
    density = min(1 - sparsity, _DENSEST)
    return np.asarray(np.geomspace(density * _SPARSEST, max(_DENSEST, density), _POINTS))


def _alone(model: Model, aim: Aim, pruner: Pruner, bench: Workbench, report: Report) -> Iterator[Budget]:
    """What goes with the scores of single weights, as if each went alone."""
    for site, weight, moment in _seen(model, aim, bench, report):
        criterion, densities = pruner.criterion(site), _densities(aim.sparsity)
        scores = magnitude(weight) if criterion.saliency == "magnitude" else obd(weight, moment)
        whole = 1.0 if criterion.saliency == "magnitude" else _energy(weight, moment)
        lost = [float(scores[~criterion.select(scores, 1 - d)].sum()) for d in densities]
        yield Budget(site, densities, np.array(lost) / whole, 1.0)


def _measured(
    model: Model, aim: Aim, pruner: Pruner, trials: Trials, bench: Workbench, report: Report
) -> Iterator[Budget]:
    """The error of some outputs of each layer, and what that at the sparsity asked for does to the model's."""
    densities = _densities(aim.sparsity)
    middle = int(np.argmin(np.abs(densities - (1 - aim.sparsity))))
    for site, pair in equations(model, model, aim.sites, bench):
        try:
            if isinstance(pair, RefusalError):
                raise pair
            layer = Layer.of(model, site, pair, pruner.criterion(site), reconstruct=pruner.reconstruct)
            damping = layer.damping(float(1 - densities[middle]))
            attempts = [layer.attempt(float(1 - each), damping) for each in densities]
        except (RefusalError, ValueError) as error:
            report.skip(site.name, str(error))
            continue
        noise = np.maximum.accumulate([each.noise for each in reversed(attempts)])[::-1]
        yield Budget(site, densities, noise, harm_of(site, layer, attempts[middle], trials))


def harm_of(site: Site, layer: Layer, attempt: Attempt, trials: Trials) -> float:
    """What noise in a layer's outputs does to the model's, as a ratio; NaN where that cannot be measured."""
    local = attempt.noise * layer.share
    if not trials.useful or not trials.takes(site.name) or not local > 0:
        return math.nan
    weight, shift = layer.weight.copy(), np.zeros(len(layer.weight))
    weight[layer.rows] = attempt.weight
    if attempt.shift is not None:
        shift[layer.rows] = attempt.shift
    return trials.noise({site.name: Altered(Layout.of(site).from_rows(weight), shift)}) / local


def _seen(model: Model, aim: Aim, bench: Workbench, report: Report) -> Iterator[tuple[Site, Array, Array]]:
    """Sites with their weights as matrices, and moments of what they read."""
    for site, moment in moments_of(model, aim.sites, bench):
        if isinstance(moment, RefusalError):
            report.skip(site.name, str(moment))
            continue
        weight = Layout.of(site).to_rows(site.array())
        if not (np.isfinite(weight).all() and np.isfinite(moment.total).all()):
            report.skip(site.name, "its weights or what it reads are no numbers, or too large for float32")
            continue
        yield site, weight, moment.total


def _energy(weight: Array, moment: Array) -> float:
    """Σ of the squares of the outputs; 1 where they are zero."""
    groups = len(moment)
    parts = weight.astype(np.float64).reshape(groups, -1, weight.shape[1])
    return float(np.einsum("grk,grk->", parts @ moment, parts)) or 1.0
