"""A plan made good enough, and fast enough: what must compute in float for the sake of the outputs or of time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.pace import Pace, pace
from onnxpress.passes.quantize.ablation import Ablation, CodedWeight, Unit, ablate
from onnxpress.passes.quantize.plan import Plan, codes_of
from onnxpress.passes.quantize.precision import Demand, Judge, Verdict, by_harm, fewest
from onnxpress.passes.quantize.recurrent import key_of
from onnxpress.passes.quantize.writing import write
from onnxpress.passes.report import Harm, Report
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

NOTABLE = 1.0
"""Decibels that recurrent layers must cost together to be left in float before all others."""


@dataclass(slots=True)
class Mix:
    """Which layers compute in float, and what that makes of the model.

    Attributes:
        verdict: on the outputs of the model that comes of it.
        floats: why, by first output.
        held: whether the outputs are as good as demanded.
        harms: what each tensor on codes does alone, the worst first; empty where it was not needed.
    """

    verdict: Verdict
    floats: dict[str, str] = field(default_factory=dict)
    held: bool = True
    harms: list[Harm] = field(default_factory=list)


def mix(model: Model, plan: Plan, bench: Workbench, demand: Demand) -> Mix:
    """Leave as few layers in float as keep the outputs good, those first that hurt most for the work they do.

    Args:
        model: in float; it is not changed.
        plan: how it is quantized.
        bench: brings samples, and the metric where the demand is about it.
        demand: on the outputs.
    """
    with Judge(model, bench, demand) as judge:
        trial = _Trial(model, plan, judge)
        if demand.holds(trial.verdict(())):
            return Mix(trial.verdict(()))
        sites = find_sites(model)
        found = _ablate(model, plan, sites, bench)
        order = trial.with_recurrent(_order(model, plan, sites, found))
        count = fewest(len(order), lambda count: demand.holds(trial.verdict(order[:count])))
        chosen = order if count is None else order[:count]
        why = "left in float so that the outputs keep " + _limits(demand)
        return Mix(trial.verdict(chosen), dict.fromkeys(chosen, why), count is not None, _harms(found))


def in_float(plan: Plan, why: str) -> dict[str, str]:
    """All layers left in float."""
    recurrent = () if plan.recurrent is None else plan.recurrent.levels
    return dict.fromkeys([*plan.nodes(), *recurrent], why)


def measured_pace(model: Model, plan: Plan, floats: Mapping[str, str], bench: Workbench, *, reference: Model) -> Pace:
    """How fast a model on codes is beside another in float."""
    copy = model.clone()
    write(copy, plan, Report("trial"), floats=floats)
    return pace(reference, [copy], bench)[0]


def rank(model: Model, plan: Plan, bench: Workbench) -> list[Harm]:
    """What each tensor on codes does alone to the outputs, the worst first."""
    found = _ablate(model, plan, find_sites(model), bench)
    return _harms(found)


class _Trial:
    """Models with some layers in float, each written and judged once."""

    def __init__(self, model: Model, plan: Plan, judge: Judge) -> None:
        self._model, self._plan, self._judge = model, plan, judge
        self._verdicts: dict[frozenset[str], Verdict] = {}

    def verdict(self, floats: Collection[str]) -> Verdict:
        key = frozenset(floats)
        if key not in self._verdicts:
            copy = self._model.clone()
            write(copy, self._plan, Report("trial"), floats=dict.fromkeys(floats, ""))
            self._verdicts[key] = self._judge.judge(copy)
        return self._verdicts[key]

    def with_recurrent(self, order: list[str]) -> list[str]:
        """The order with the recurrent layers in front where they cost much, else behind."""
        recurrent = [] if self._plan.recurrent is None else list(self._plan.recurrent.levels)
        if recurrent and not self.verdict(recurrent).sqnr < self.verdict(()).sqnr + NOTABLE:
            return recurrent + order
        return order + recurrent


def _ablate(model: Model, plan: Plan, sites: Sequence[Site], bench: Workbench) -> Ablation:
    placement = plan.place(model)
    grids = plan.grids(model, placement.tensors)
    by_name = {each.tensor.name: grids[id(each.tensor)] for each in placement.tensors}
    coded = {key_of(node) for node in placement.coded.values()}
    return ablate(model, placement.tensors, by_name, _weights(plan, sites, coded), bench)


def _weights(plan: Plan, sites: Sequence[Site], coded: Collection[str]) -> list[CodedWeight]:
    """The weights of the layers on codes."""
    found = []
    for site in sites:
        layer = plan.layers.get(site.name)
        if layer is None:
            continue
        codes = plan.codes(layer)
        scale = layer.scales[codes.name]
        zero = np.full(scale.shape, codes.zero, codes.grid.dtype)
        for use in site.uses:
            if key_of(use.node) in layer.nodes and key_of(use.node) in coded:
                values = codes_of(site, layer, codes)
                found.append(CodedWeight(use.node, use.index, values, scale, zero, layer.axis))
    return found


def _order(model: Model, plan: Plan, sites: Sequence[Site], found: Ablation) -> list[str]:
    """Layers on codes, the ones first that are best left in float."""
    by_name = {site.name: site for site in sites}
    per_output: dict[str, int] = {}
    for layer in plan.layers.values():
        site = by_name[layer.site]
        per_output |= dict.fromkeys(layer.nodes, site.size // max(1, Layout.of(site).rows))
    weights = {unit.reader: unit for unit in found.noise if unit.kind == "weight"}
    layers = [key for key in plan.nodes() if key in found.sizes]
    work = {key: float(found.sizes[key]) * per_output[key] for key in layers}

    def units(floats: Collection[str]) -> list[Unit]:
        placement = plan.place(model, floats=floats)
        active = [weights[key] for node in placement.coded.values() if (key := key_of(node)) in weights]
        for each in placement.tensors:
            readers = [None] if each.readers is None else [key_of(reader) for reader, _ in each.readers]
            active += [Unit(each.tensor.name, reader, "activation") for reader in readers]
        return [unit for unit in dict.fromkeys(active) if unit in found.noise]

    return by_harm(layers, noise=found.noise, units=units, work=work)


def _harms(found: Ablation) -> list[Harm]:
    return [Harm(unit.tensor, unit.reader, unit.kind, sqnr) for unit, sqnr in found.ranking()]


def _limits(demand: Demand) -> str:
    limits = [f"{demand.min_sqnr:g} dB"] if demand.min_sqnr else []
    if demand.max_drop is not None:
        limits.append(f"the metric within {demand.max_drop:g}")
    return " and ".join(limits)
