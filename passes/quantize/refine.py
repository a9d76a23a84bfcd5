"""Better weights at the same number of bits: scales, rounding and biases that suit what the layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxpress.calibration.observers import SecondMoment
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import check_sole, moments_of
from onnxpress.passes.kernels.affine import Floats, Ints, dequantize
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.bias import bias_correction
from onnxpress.passes.kernels.scales import mse_scale
from onnxpress.passes.quantize.coding import WEIGHT_CODES, WeightCodes, saving, weight_scale
from onnxpress.passes.quantize.plan import Plan
from onnxpress.passes.quantize.reconstruct import Method, importance_of, rounded
from onnxpress.passes.quantize.shelf import Shelf
from onnxpress.passes.quantize.storage import Chosen, storage_axis
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

Scales: TypeAlias = Literal["max", "mse"]
SCALES: tuple[Scales, ...] = get_args(Scales)

BIASED = ("Conv", "Gemm")
"""Operators that have a bias to correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How weights become codes.

    Attributes:
        scales: `max`, at which nothing saturates; `mse`, at which the squared error is least, weighed by the inputs.
        rounding: `nearest`, `gptq` or `adaround` (see `reconstruct.rounded`).
        correct_bias: take the mean error away from the output of layers that have a bias.
    """

    scales: Scales = "max"
    rounding: Method = "gptq"
    correct_bias: bool = False

    @property
    def empty(self) -> bool:
        """Whether no samples are needed."""
        return self.scales == "max" and self.rounding == "nearest" and not self.correct_bias


def refine(model: Model, plan: Plan, sites: Sequence[Site], bench: Workbench, how: Refinement) -> None:
    """Choose the codes of all weights, of those that layers read as codes and of those that are decoded at load.

    Args:
        model: in float, with ranges measured; it is not changed.
        plan: takes the codes. A weight without samples keeps the nearest codes, and says so.
        sites: of the model.
        bench: brings samples.
        how: options.
    """
    if how.empty:
        return
    wanted = [site for site in sites if site.weight.dtype == np.float32 and _waits(site, plan)]
    shelf = Shelf()
    moments = moments_of(model, wanted, bench)
    for site, moment in bench.progress.track(moments, label=how.rounding, total=len(wanted)):
        try:
            if isinstance(moment, RefusalError):
                raise moment
            _refine(model, site, plan, moment, how, shelf)
        except RefusalError as refusal:
            note = f"codes nearest: {refusal}"
            if site.name in plan.layers:
                plan.layers[site.name].note = note
            elif site.op != "Gather":  # of which nobody expects more
                plan.stored[site.name] = Chosen(None, None, note)


def _waits(site: Site, plan: Plan) -> bool:
    layer = plan.layers.get(site.name)
    return site.name not in plan.stored if layer is None else layer.codes not in layer.rounded


def _refine(model: Model, site: Site, plan: Plan, moment: SecondMoment, how: Refinement, shelf: Shelf) -> None:
    """Choose the codes of one weight: those that its layers read, and those of 8 bits for when they are decoded."""
    layer, layout = plan.layers.get(site.name), Layout.of(site)
    rows = layout.to_rows(site.array())
    check_sole(model, site)
    plain, axis = WEIGHT_CODES["int8"], storage_axis(site) if plan.per_channel else None
    if layer is not None:
        codes = plan.codes(layer)
        found = _choose(rows, layer.scales[codes.name], codes, moment, how)
        layer.scales[codes.name], layer.note = found.scale, found.note
        layer.rounded[codes.name] = shelf.put(_stored(layout, found, codes))
        if how.correct_bias and all(use.node.op in BIASED for use in site.uses):
            error = rows - dequantize(found.codes, found.scale, axis=None if found.scale.ndim == 0 else 0)
            layer.correction = bias_correction(error, moment.mean)
        if codes.name == plain.name:
            plan.stored[site.name] = Chosen(found.scale, layer.rounded[codes.name], found.note)
    if site.name not in plan.stored and saving(site, axis=axis) > 0:
        found = _choose(rows, weight_scale(site, axis=axis, grid=plain.signed), plain, moment, how)
        plan.stored[site.name] = Chosen(found.scale, shelf.put(_stored(layout, found, plain)), found.note)


@dataclass(frozen=True, slots=True)
class _Found:
    """Codes [out, k] about zero, their scale, and how they came about."""

    codes: Ints
    scale: Floats
    note: str


def _choose(rows: Array, scale: Floats, codes: WeightCodes, moment: SecondMoment, how: Refinement) -> _Found:
    _, before = rounded(rows, scale, grid=codes.signed, moment=moment, method="nearest")
    if how.scales == "mse":
        scale = _mse_scale(rows, scale, codes, moment)
    method = how.rounding
    found, after = rounded(rows, scale, grid=codes.signed, moment=moment, method=method)
    return _Found(found, scale, f"{method} {before:.2%} → {after:.2%}")


def _stored(layout: Layout, found: _Found, codes: WeightCodes) -> Ints:
    """Codes as the weight is stored, with their zero point."""
    return (layout.from_rows(found.codes).astype(np.int16) + codes.zero).astype(codes.grid.dtype)


def _mse_scale(rows: Array, scale: Floats, codes: WeightCodes, moment: SecondMoment) -> Floats:
    """Scales of the least squared error, of the shape of `scale`."""
    importance = importance_of(moment, rows=len(rows))
    if scale.ndim:
        return mse_scale(rows, codes.signed, importance=importance)
    wide = np.broadcast_to(importance, rows.shape).reshape(1, -1)
    return mse_scale(rows.reshape(1, -1), codes.signed, importance=wide).reshape(())
