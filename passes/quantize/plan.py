"""What is known before anything is written: which layers can compute on codes, and the ranges of what they read.

A plan names tensors and nodes (a node by its first output) instead of pointing at them, so it holds for every copy of
the model that it was made for, and one plan is written many times with other layers left in float.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import check_sole
from onnxpress.passes.kernels.affine import Floats, Ints, dequantize, quantize, symmetric_scale
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.quantize.bounds import floor_of, mask_floors
from onnxpress.passes.quantize.coding import WeightCodes, common_axis, weight_scale
from onnxpress.passes.quantize.everywhere import place_everywhere
from onnxpress.passes.quantize.placement import Placement, Wrapped, place
from onnxpress.passes.quantize.ranges import Estimate, Range, grids_of, measure
from onnxpress.passes.quantize.recurrent import LstmPlan, key_of
from onnxpress.passes.quantize.rules import refusal
from onnxpress.passes.quantize.storage import Chosen, check_float32
from onnxpress.passes.quantize.targets import Target
from onnxpress.passes.quantize.trial import Candidate, try_layers
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import Produced, Values, values_of

GAIN = 3.0
"""Decibels by which wider weight codes must better a layer to be taken although their products are slower: the last bit
of its weights then makes half of its error."""

Grids: TypeAlias = dict[int, tuple[Floats, Ints]]
"""Scale and zero point of tensors, by identity."""


@dataclass(slots=True, eq=False)
class Layer:
    """A weight that nodes can read as codes.

    Attributes:
        site: name of the weight's site.
        nodes: who can; other users read it in float.
        axis: of the scales.
        scales: of the weight, float32, by the name of its codes.
        codes: the name of those that it gets.
        rounded: codes that samples chose, of the weight's shape, by the name of its codes; others are the nearest.
        correction: what biases take in for the mean error of the output, float32 [out]; None for nothing.
        note: how samples chose the codes; empty where none did.
    """

    site: str
    nodes: tuple[str, ...]
    axis: int | None
    scales: dict[str, Floats]
    codes: str
    rounded: dict[str, Values] = field(default_factory=dict)
    correction: Floats | None = None
    note: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Plan:
    """What is known before anything is written.

    Attributes:
        target: what for.
        per_channel: one scale for each output channel of a weight.
        ops: operators that may compute on codes; None for all.
        sites: names of those that may be touched, in graph order.
        layers: weights that can be codes in a layer, by the name of their site.
        reasons: why a node that uses a weight computes in float.
        floating: names of the tensors of the main graph that hold float32.
        ranges: of tensors.
        sqnr: of a node on codes alone, in dB, where it was tried.
        stored: codes that samples chose for weights that are read in float, by the name of their site.
        recurrent: LSTMs that compute on codes; None where the target has none.
    """

    target: Target
    per_channel: bool
    ops: tuple[str, ...] | None
    sites: tuple[str, ...]
    layers: dict[str, Layer] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    floating: frozenset[str] = frozenset()
    ranges: dict[str, Range] = field(default_factory=dict)
    sqnr: dict[str, float] = field(default_factory=dict)
    stored: dict[str, Chosen] = field(default_factory=dict)
    recurrent: LstmPlan | None = None

    def codes(self, layer: Layer) -> WeightCodes:
        """Those of a layer's weight."""
        return next(each for each in self.target.weights if each.name == layer.codes)

    def nodes(self, floats: Collection[str] = ()) -> list[str]:
        """The nodes that can compute on codes, without some."""
        every = (node for layer in self.layers.values() for node in layer.nodes)
        return [node for node in every if node not in self.reasons and node not in floats]

    def place(self, model: Model, *, floats: Collection[str] = ()) -> Placement:
        """Where codes go in a copy of the model, with some layers left in float."""
        named = {key_of(node): node for node in model.graph.nodes}
        layers = [named[key] for key in self.nodes(floats)]
        barred = {id(t): t for node in model.graph.nodes for t in [*node.inputs, *node.outputs] if self.is_odd(t.name)}
        if self.target.everywhere:
            if not layers:
                return Placement()  # codes beside float weights make nothing faster
            left = [named[key] for key in {*self.reasons, *floats} if key in named]
            return place_everywhere(model, floating=self.floating, left=left, barred=barred)
        return place(model, layers, rules=self.target.rules, ops=self.ops, barred=barred)

    def grids(self, model: Model, tensors: Sequence[Wrapped]) -> Grids:
        """Scale and zero point of what becomes codes in a copy of the model, by identity."""
        grid = self.target.activation
        found = grids_of(tensors, self._bounded(model), grid, public=output_ids(model))
        if not self.target.symmetric:
            return found
        return {key: _centred(scale, zero, self.target) for key, (scale, zero) in found.items()}

    def is_odd(self, name: str) -> bool:
        """Whether a tensor was seen to hold what codes cannot stand for."""
        return name in self.ranges and not self.ranges[name].usable

    def _bounded(self, model: Model) -> Mapping[str, Range]:
        """The ranges, those of masked attention scores without what softmax makes zero of."""
        floors = mask_floors(model, _spans(self.ranges))
        return {name: seen.above(floors[name]) if name in floors else seen for name, seen in self.ranges.items()}


def _spans(ranges: Mapping[str, Range]) -> dict[str, tuple[float, float]]:
    return {name: (seen.low, seen.high) for name, seen in ranges.items() if not seen.empty}


def codes_of(site: Site, layer: Layer, codes: WeightCodes) -> Values:
    """A weight as codes of a kind: those that samples chose, or the nearest."""
    if codes.name in layer.rounded:
        return layer.rounded[codes.name]
    old, scale = values_of(site.weight), layer.scales[codes.name]
    return Produced(
        old.shape,
        codes.grid.dtype,
        lambda: quantize(old.load(), scale, codes.zero, grid=codes.grid, axis=layer.axis),
    )


def survey(
    model: Model,
    sites: Sequence[Site],
    *,
    target: Target,
    per_channel: bool,
    ops: tuple[str, ...] | None = None,
    obstacle: str | None = None,
) -> Plan:
    """Find out which sites can compute on codes.

    Args:
        model: in float; its opset knows codes.
        sites: that may be touched.
        target: what for.
        per_channel: one scale for each output channel of a weight.
        ops: operators that may compute on codes; None for all.
        obstacle: why no layer can; None where some may.
    """
    shapes = infer_shapes(model)
    tensors = [*model.graph.inputs, *(out for node in model.graph.nodes for out in node.outputs)]
    floating = frozenset(t.name for t in tensors if t.name and shapes.dtype(t) == np.float32)
    plan = Plan(target=target, per_channel=per_channel, ops=ops, sites=tuple(s.name for s in sites), floating=floating)
    for site in sites:
        whys = {key_of(use.node): obstacle or _refusal(model, use, plan) for use in site.uses}
        plan.reasons.update((key, why) for key, why in whys.items() if why is not None)
        layer = _layer(model, site, tuple(key for key, why in whys.items() if why is None), plan)
        if layer is not None:
            plan.layers[site.name] = layer
    return plan


def _refusal(model: Model, use: Use, plan: Plan) -> str | None:
    """Why a node cannot compute on codes; None where it can."""
    if use.graph is not model.graph:
        return "it is inside an If or a Loop, where no ranges are measured"
    return refusal(use, rules=plan.target.rules, ops=plan.ops)


def _layer(model: Model, site: Site, nodes: tuple[str, ...], plan: Plan) -> Layer | None:
    """A site as layer; None where it cannot be one, which `store` finds as well and says."""
    try:
        check_float32(site)
        check_sole(model, site)
        axis = common_axis(site) if plan.per_channel else None
        scales = {each.name: weight_scale(site, axis=axis, grid=each.signed) for each in plan.target.weights}
    except RefusalError:
        return None
    return Layer(site.name, nodes, axis, scales, plan.target.weights[0].name) if nodes else None


def calibrate(
    model: Model, plan: Plan, bench: Workbench, *, estimate: Estimate | None = None, calibration: Path | None = None
) -> None:
    """Measure the ranges of all tensors that may become codes.

    Args:
        model: in float.
        plan: takes the ranges.
        bench: brings samples.
        estimate: how ranges follow from what is seen; None takes minimum and maximum.
        calibration: a file of `onnxpress calibrate`, which takes the place of the samples.

    Raises:
        FeedError: there are no samples, or they hold NaN or infinities.
        ConfigError: the calibration file does not suit.
    """
    tensors = [each.tensor.name for each in plan.place(model).tensors]
    if not tensors:
        return
    plan.ranges.update(measure(model, tensors, bench, estimate=estimate, calibration=calibration))
    for name in mask_floors(model, _spans(plan.ranges)):
        plan.ranges[name] = replace(plan.ranges[name], odd=0)  # of −inf, which is as good as the floor


def try_out(model: Model, plan: Plan, sites: Sequence[Site], bench: Workbench, *, layer_sqnr: float) -> None:
    """Try every layer on codes, choose the codes of its weight, and leave out those that lose too much.

    Args:
        model: in float, with ranges measured.
        plan: takes what is found.
        sites: of the model.
        bench: brings samples.
        layer_sqnr: what a layer must have at least, in dB.
    """
    narrow, *wider = plan.target.weights
    plan.sqnr.update(_trial(model, plan, sites, bench, codes=narrow))
    if wider and (doubtful := [site for site in sites if _is_doubtful(plan, site, narrow)]):
        for codes in wider:
            _choose(plan, _trial(model, plan, doubtful, bench, codes=codes), codes)
    for key, found in plan.sqnr.items():
        if found < layer_sqnr:
            plan.reasons[key] = f"on codes it has {found:.1f} dB, layer_sqnr is {layer_sqnr:g}"


def _is_doubtful(plan: Plan, site: Site, codes: WeightCodes) -> bool:
    """Whether the error of a weight may be half of its layer's, so that wider codes are worth a trial.

    Inputs alike in all directions would carry ‖W − W'‖² / ‖W‖² into the result; others may double that.
    """
    layer = plan.layers.get(site.name)
    tried = [] if layer is None else [plan.sqnr[key] for key in layer.nodes if key in plan.sqnr]
    if layer is None or not tried:
        return False
    weight, scale = site.array(), layer.scales[codes.name]
    rounded = codes_of(site, layer, codes).load()
    error = relative_error(weight, dequantize(rounded, scale, codes.zero, axis=layer.axis))
    return 4 * error**2 > 10 ** (-min(tried) / 10)


def _choose(plan: Plan, found: Mapping[str, float], codes: WeightCodes) -> None:
    """Take other codes where they make all layers of a weight better by enough."""
    for layer in plan.layers.values():
        tried = [key for key in layer.nodes if key in found]
        if tried and all(found[key] >= plan.sqnr[key] + GAIN for key in tried):
            layer.codes = codes.name
            plan.sqnr.update((key, found[key]) for key in tried)


def _trial(
    model: Model, plan: Plan, sites: Sequence[Site], bench: Workbench, *, codes: WeightCodes
) -> dict[str, float]:
    """Signal to noise of every layer on codes alone, in dB."""
    placement, public = plan.place(model), output_ids(model)
    named = {key_of(node): node for node in placement.coded.values()}
    by_name, candidates = {site.name: site for site in sites}, []
    for layer in (each for each in plan.layers.values() if each.site in by_name):
        scale = layer.scales[codes.name]
        weight = codes_of(by_name[layer.site], layer, codes).load()
        for node in (named[key] for key in layer.nodes if key in named):
            tail = placement.tails[id(node)]
            floor = -math.inf if id(tail) in public else floor_of(tail)
            candidates.append(Candidate(node, tail, weight, scale, layer.axis, zero=codes.zero, floor=floor))
    grids = plan.grids(model, placement.tensors)
    found = try_layers(model, candidates, {t.tensor.name: grids[id(t.tensor)] for t in placement.tensors}, bench)
    return {key_of(each.node): sqnr for each, sqnr in zip(candidates, found, strict=True)}


def _centred(scale: Floats, zero: Ints, target: Target) -> tuple[Floats, Ints]:
    """A grid with zero point 0 for all that another one holds."""
    grid = target.activation
    low, high = (float(scale) * (code - float(zero)) for code in (grid.low, grid.high))
    return symmetric_scale(max(-low, high), grid), np.zeros((), grid.dtype)
