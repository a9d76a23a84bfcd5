"""The plan, written into a copy of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.affine import Floats, affine_scale, quantize, scale_for_bias
from onnxpress.passes.quantize.bounds import mask_floors
from onnxpress.passes.quantize.coding import WeightCodes, bias_of, code, flat
from onnxpress.passes.quantize.placement import Placement
from onnxpress.passes.quantize.plan import Grids, Layer, Plan
from onnxpress.passes.quantize.qdq import Writer
from onnxpress.passes.quantize.reasons import explain_nodes, explain_tensors
from onnxpress.passes.quantize.recurrent import key_of, write_lstms
from onnxpress.passes.quantize.storage import read_as_float, store
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import set_input, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.weights import read

OPERANDS = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu", "Where", "LayerNormalization")
"""Operators whose constants are operands like any other, and become codes where every tensor does."""

LARGEST = 1e37
"""Bound of constants: the scale of larger ones may round to where the greatest code is infinite."""


def write(model: Model, plan: Plan, report: Report, *, floats: Mapping[str, str] | None = None) -> Placement:
    """Turn a model in float into one on codes, as planned.

    Args:
        model: the one that the plan is for, or a copy; it is changed, and swept.
        plan: with ranges measured; it is left as it is, and can be written again.
        report: gets a change or a skip for every site, and the account of the tensors.
        floats: layers that compute in float all the same, by their first output, and why; their weights are stored as
            codes.

    Returns:
        Where codes went.
    """
    floats = floats or {}
    placement = plan.place(model, floats=floats)
    reasons = {**plan.reasons, **floats}
    reasons |= explain_nodes(model, plan, placement, reasons)
    report.tensors.update(explain_tensors(model, plan, placement, reasons))
    by_name = {site.name: site for site in find_sites(model)}
    sites = [by_name[name] for name in plan.sites]
    if plan.recurrent is not None:
        left = write_lstms(model, sites, plan.recurrent, report, floats=floats)
        sites, placement.recurrent = left.sites, left.count
        reasons |= left.reasons
    job = _Job(model, plan, plan.grids(model, placement.tensors), reasons, report, Writer(model))
    for site in sites:
        job.write_site(site)
    if plan.target.everywhere:
        job.write_constants(placement, mask_floors(model, {n: (r.low, r.high) for n, r in plan.ranges.items()}))
    for each in placement.tensors:
        job.writer.wrap(each, *job.grids[id(each.tensor)])
    sweep(model)
    return placement


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One model in the writing."""

    model: Model
    plan: Plan
    grids: Grids
    reasons: Mapping[str, str]
    report: Report
    writer: Writer

    def write_site(self, site: Site) -> None:
        layer = self.plan.layers.get(site.name)
        if layer is not None and any(key not in self.reasons for key in layer.nodes):
            self._write_layer(site, layer)
            return
        because = next((self.reasons[key_of(u.node)] for u in site.uses if key_of(u.node) in self.reasons), "")
        chosen = self.plan.stored.get(site.name)
        store(self.model, site, self.report, per_channel=self.plan.per_channel, because=because, chosen=chosen)

    def _write_layer(self, site: Site, layer: Layer) -> None:
        on_codes = [use for use in site.uses if key_of(use.node) not in self.reasons]
        others = tuple(use for use in site.uses if key_of(use.node) in self.reasons)
        codes, before = self._codes(layer, shared=bool(others)), site.nbytes
        scale, with_bias = layer.scales[codes.name], not self.plan.target.float_bias
        steps = {id(use): float(self.grids[id(use.node.inputs[0])][0]) for use in on_codes}
        for use in on_codes:
            if layer.correction is not None and codes.name in layer.rounded:
                self._correct(use.node, layer.correction)
            if with_bias and (bias := bias_of(use.node)) is not None:
                scale = scale_for_bias(scale, input_scale=steps[id(use)], bias=flat(bias))
        chosen = layer.rounded.get(codes.name) if np.array_equal(scale, layer.scales[codes.name]) else None
        coded = code(self.model, site, scale, axis=layer.axis, grid=codes.grid, zero=codes.zero, chosen=chosen)
        for use in on_codes:
            if with_bias:
                self.writer.bias(use.node, coded, input_scale=steps[id(use)])
            self.writer.weight(use, coded)
        read_as_float(self.model, others, coded)
        found = [self.plan.sqnr[key] for use in on_codes if (key := key_of(use.node)) in self.plan.sqnr]
        tried = f", {min(found):.1f} dB" if found else ""
        per_channel = " per channel" if layer.axis is not None else ""
        self.report.change(
            site.name,
            f"{codes.grid.dtype.name}{per_channel}, activations {self.plan.target.activation.dtype.name}{tried}"
            + (f", {layer.note}" if layer.note else ""),
            bytes_before=before,
            bytes_after=coded.nbytes,
            error=coded.error,
        )

    def _correct(self, node: gs.Node, correction: Floats) -> None:
        """Let the bias take in the mean error of the output."""
        bias = bias_of(node)
        wide = correction if bias is None else flat(bias) + correction
        set_input(node, 2, self.model.add_weight("b", wide))

    def _codes(self, layer: Layer, *, shared: bool) -> WeightCodes:
        """The codes of a weight; ones about zero where others read it in float."""
        chosen = self.plan.codes(layer)
        if not shared or not chosen.zero:
            return chosen
        return next(each for each in self.plan.target.weights if not each.zero)

    def write_constants(self, placement: Placement, floors: Mapping[str, float]) -> None:
        """Turn constant operands into codes of activations."""
        grid = self.plan.target.activation
        for node, index, constant in _operands(placement):
            values = np.maximum(np.asarray(read(constant), np.float32), floors.get(constant.name, -LARGEST))
            if np.isfinite(values).all():
                values = np.minimum(values, LARGEST)
                scale, zero = affine_scale(values.min(initial=0), values.max(initial=0), grid)
                self.writer.constant(node, index, scale, quantize(values, scale, zero, grid=grid), zero)


def _operands(placement: Placement) -> Iterator[tuple[gs.Node, int, gs.Constant]]:
    for node in placement.coded.values():
        if node.op in OPERANDS:
            for index, tensor in enumerate(node.inputs):
                if isinstance(tensor, gs.Constant) and tensor.dtype == np.float32:
                    yield node, index, tensor
