"""8-bit weights and activations, with ranges known beforehand from samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import INT8, UINT8, Floats, Grid, Ints, quantize, scale_for_bias
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.quantize.coding import bias_of, code, common_axis, flat, weight_grid, weight_scale
from onnxpress.passes.quantize.host import detect
from onnxpress.passes.quantize.options import check_flag, check_names, check_number
from onnxpress.passes.quantize.placement import RULES, Placement, place, refusal
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.quantize.qdq import Writer
from onnxpress.passes.quantize.ranges import grids_of, measure
from onnxpress.passes.quantize.storage import check_float32, note_quantized, read_as_float, store
from onnxpress.passes.quantize.trial import Candidate, try_layers
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, SitePass, check_choice
from onnxpress.rewriter.edits import output_ids, sweep
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import Site, Use, find_sites

OPSET = 13
"""The first with one scale a channel."""

Grids: TypeAlias = dict[int, tuple[Floats, Ints]]
"""Scale and zero point of tensors, by identity."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A weight that layers can read as codes.

    Attributes:
        site: the weight.
        uses: the nodes that are layers; other users read it in float.
        axis: of the scales.
        scale: of the weight.
    """

    site: Site
    uses: tuple[Use, ...]
    axis: int | None
    scale: Floats


@dataclass(slots=True)
class _Work:
    """One run of the pass.

    Attributes:
        sites: all that may be touched.
        layers: those that can compute on codes, by identity of the site.
        reasons: why a node computes in float, by its identity.
        sqnr: of a node on codes, in dB, where it was tried; by its identity.
    """

    sites: list[Site]
    layers: dict[int, _Layer] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    sqnr: dict[int, float] = field(default_factory=dict)

    @property
    def nodes(self) -> list[gs.Node]:
        """The nodes that can compute on codes, as far as is known."""
        every = (use.node for layer in self.layers.values() for use in layer.uses)
        return [node for node in every if id(node) not in self.reasons]

    def explain(self, placement: Placement, barred: Mapping[int, gs.Tensor]) -> None:
        """Note why nodes that could compute on codes are not placed."""
        for node in self.nodes:
            if id(node) not in placement.coded:
                odd = [t.name for t in [*node.inputs, *node.outputs] if id(t) in barred]
                thin = "it sums too few products for an output that is read in float"
                self.reasons[id(node)] = f"'{odd[0]}' held NaN or infinities" if odd else thin

    def reason(self, site: Site) -> str:
        """Why the first user that computes in float does so; empty where none does."""
        return next((self.reasons[id(use.node)] for use in site.uses if id(use.node) in self.reasons), "")


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(SitePass):
    """Compute on 8-bit codes where ONNX Runtime can: weights symmetric, activations with ranges seen in samples.

    x ≈ s_x (q_x − z_x), w ≈ s_w q_w, so w·x ≈ s_w s_x Σ q_w (q_x − z_x), summed in 32 bits; the bias is stored as
    int32 at scale s_x s_w (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). Written as QuantizeLinear and
    DequantizeLinear round float operators, which ONNX Runtime merges into QLinearConv, QGemm and so on. Weights of
    sites that cannot compute on codes are stored as codes all the same and decoded once, when the model is loaded.

    Attributes:
        activation: codes of activations, asymmetric.
        per_channel: one scale for each output channel of a weight instead of one a tensor.
        reduce_range: weights of 7 bits, for CPUs that add 8-bit products in 16 bits; None asks this machine's CPU.
        min_sqnr: layers whose result on codes has a lower signal-to-noise ratio, in dB, on samples and apart from all
            other layers, compute in float; 0 tries none.
        ops: operators that may compute on codes; None for all that ONNX Runtime has.
    """

    name: ClassVar[str] = "quantize-static"
    activation: Literal["uint8", "int8"] = "uint8"
    per_channel: bool = True
    reduce_range: bool | None = None
    min_sqnr: float = 20.0
    ops: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "activation", ("uint8", "int8"))
        check_flag(self, "per_channel")
        check_flag(self, "reduce_range", optional=True)
        check_number(self, "min_sqnr")
        check_names(self, "ops", RULES)

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Measure ranges, plan, and rewrite.

        Raises:
            FeedError: no samples, or ones that hold NaN or infinities.
            ModelError: the result does not run.
        """
        report = self.report()
        note_quantized(model, report)
        obstacle = self._raise_opset(model, bench, report)
        before = model.clone()
        work = self._survey(model, self.candidates(model, report), obstacle)
        placement, grids = self._calibrate(model, work, bench)
        self._write(model, work, placement, grids, report)
        sweep(model)
        if report.changes and not placement.coded:
            report.warnings.append(
                "no layer computes in int8: weights are stored in 8 bits and decoded while the model is loaded, so it "
                "is smaller but not faster; each change says why"
            )
        if report.changes:
            prove(model, before, bench, name=self.name)
        return report

    @property
    def _weight_grid(self) -> Grid:
        return weight_grid(narrow=detect().saturates if self.reduce_range is None else self.reduce_range)

    def _raise_opset(self, model: Model, bench: Workbench, report: Report) -> str | None:
        """Make sure that the model's opset knows codes; gives the reason why it cannot be raised."""
        old = model.opset
        uses = [use for site in find_sites(model) for use in site.uses]
        if old >= OPSET or all(self._refusal(model, use) for use in uses):
            return None
        try:
            raise_opset(model, OPSET)
        except ModelError as error:
            return f"{error}; export the model with opset {OPSET} or newer"
        report.change("graph", f"opset {old} became {OPSET}, the first with one scale a channel")
        # What was an attribute may be an input now, and comes as a Constant node.
        Normalise(fix_defaults=False, inline_functions=False).apply(model, bench)
        sweep(model)
        return None

    def _refusal(self, model: Model, use: Use) -> str | None:
        """Why a node cannot compute on codes; None where it can."""
        if use.graph is not model.graph:
            return "it is inside an If or a Loop, where no ranges are measured"
        return refusal(use, ops=self.ops)

    def _survey(self, model: Model, sites: list[Site], obstacle: str | None) -> _Work:
        """Find out which sites can compute on codes."""
        work = _Work(sites)
        for site in sites:
            whys = {id(use.node): obstacle or self._refusal(model, use) for use in site.uses}
            uses = tuple(use for use in site.uses if whys[id(use.node)] is None)
            work.reasons.update((node, why) for node, why in whys.items() if why is not None)
            try:
                check_float32(site)
                axis = common_axis(site) if self.per_channel else None
                scale = weight_scale(site, axis=axis, grid=self._weight_grid)
            except RefusalError:
                continue  # `store` finds the same and says so
            if uses:
                work.layers[id(site)] = _Layer(site, uses, axis, scale)
        return work

    def _calibrate(self, model: Model, work: _Work, bench: Workbench) -> tuple[Placement, Grids]:
        """Plan where codes go, as far as what is measured on samples allows."""
        placement = place(model, work.nodes, ops=self.ops)
        if not placement.tensors:
            work.explain(placement, {})
            return placement, {}
        ranges = measure(model, [each.tensor.name for each in placement.tensors], bench)
        barred: dict[int, gs.Tensor] = {}
        while odd := {id(t.tensor): t.tensor for t in placement.tensors if not ranges[t.tensor.name].usable}:
            barred |= odd
            placement = place(model, work.nodes, ops=self.ops, barred=barred)
        work.explain(placement, barred)
        codes, public = UINT8 if self.activation == "uint8" else INT8, output_ids(model)
        grids = grids_of(placement.tensors, ranges, codes, public=public)
        if not self.min_sqnr:
            return placement, grids
        self._try(model, work, placement, grids, bench)
        placement = place(model, work.nodes, ops=self.ops, barred=barred)
        work.explain(placement, barred)
        return placement, grids_of(placement.tensors, ranges, codes, public=public)

    def _try(self, model: Model, work: _Work, placement: Placement, grids: Grids, bench: Workbench) -> None:
        """Leave out the layers that lose too much on codes."""
        candidates: list[Candidate] = []
        for layer in work.layers.values():
            weight = quantize(layer.site.array(), layer.scale, grid=self._weight_grid, axis=layer.axis)
            tails = {id(use): placement.tails[id(use.node)] for use in layer.uses if id(use.node) in placement.tails}
            placed = (use for use in layer.uses if id(use) in tails)
            candidates += (Candidate(u.node, tails[id(u)], weight, layer.scale, layer.axis) for u in placed)
        by_name = {each.tensor.name: grids[id(each.tensor)] for each in placement.tensors}
        for each, found in zip(candidates, try_layers(model, candidates, by_name, bench), strict=True):
            work.sqnr[id(each.node)] = found
            if found < self.min_sqnr:
                work.reasons[id(each.node)] = f"on codes it has {found:.1f} dB, min_sqnr is {self.min_sqnr:g}"

    def _write(self, model: Model, work: _Work, placement: Placement, grids: Grids, report: Report) -> None:
        writer = Writer(model)
        for site in work.sites:
            layer = work.layers.get(id(site))
            if layer is None or all(id(use.node) in work.reasons for use in layer.uses):
                store(model, site, report, per_channel=self.per_channel, because=work.reason(site))
            else:
                self._write_layer(model, layer, writer, work, grids, report)
        for each in placement.tensors:
            writer.wrap(each, *grids[id(each.tensor)])
        if work.layers and placement.coded:
            bits = 7 if self._weight_grid.high < 127 else 8
            why = "as asked for" if self.reduce_range is not None else f"{detect().describe()} runs it"
            report.change("graph", f"weights of {bits} bits: {why}")

    def _write_layer(
        self, model: Model, layer: _Layer, writer: Writer, work: _Work, grids: Grids, report: Report
    ) -> None:
        site, scale, before = layer.site, layer.scale, layer.site.nbytes
        on_codes = [use for use in layer.uses if id(use.node) not in work.reasons]
        steps = {id(use): float(grids[id(use.node.inputs[0])][0]) for use in on_codes}
        for use in on_codes:
            if (bias := bias_of(use.node)) is not None:
                scale = scale_for_bias(scale, input_scale=steps[id(use)], bias=flat(bias))
        coded = code(model, site, scale, axis=layer.axis, grid=self._weight_grid)
        for use in on_codes:
            writer.bias(use.node, coded, input_scale=steps[id(use)])
            writer.weight(use, coded)
        read_as_float(model, tuple(use for use in site.uses if all(use is not each for each in on_codes)), coded)
        found = [work.sqnr[id(use.node)] for use in on_codes if id(use.node) in work.sqnr]
        tried = f", {min(found):.1f} dB" if found else ""
        kind = "int8 per channel" if layer.axis is not None else "int8"
        report.change(
            site.name,
            f"{kind}, activations {self.activation}{tried}",
            bytes_before=before,
            bytes_after=coded.nbytes,
            error=coded.error,
        )
