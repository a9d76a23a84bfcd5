"""Better weights at the same number of bits: scales, rounding and biases that suit what the layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxpress.calibration.observers import SecondMoment
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.kernels.affine import Floats, dequantize
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.bias import bias_correction
from onnxpress.passes.kernels.scales import mse_scale
from onnxpress.passes.quantize.coding import WeightCodes
from onnxpress.passes.quantize.plan import Layer, Plan
from onnxpress.passes.quantize.reconstruct import Method, importance_of, rounded
from onnxpress.passes.quantize.recurrent import key_of
from onnxpress.passes.quantize.shelf import Shelf
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

Scales: TypeAlias = Literal["max", "mse"]
SCALES: tuple[Scales, ...] = get_args(Scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How weights become codes.

    Attributes:
        scales: `max`, at which nothing saturates; `mse`, at which the squared error is least, weighed by the inputs.
        rounding: `nearest`, `gptq` or `adaround` (see `reconstruct.rounded`).
        correct_bias: take the mean error of the layer's output away.
    """

    scales: Scales = "max"
    rounding: Method = "gptq"
    correct_bias: bool = False

    @property
    def empty(self) -> bool:
        """Whether no samples are needed."""
        return self.scales == "max" and self.rounding == "nearest" and not self.correct_bias


def refine(model: Model, plan: Plan, sites: Sequence[Site], bench: Workbench, how: Refinement) -> None:
    """Choose the codes of all weights that layers read as codes.

    Args:
        model: in float, with ranges measured; it is not changed.
        plan: takes the codes. A weight without samples keeps the nearest codes, and says so.
        sites: of the model.
        bench: brings samples.
        how: options.
    """
    if how.empty:
        return
    coded = {key_of(node) for node in plan.place(model).coded.values()}
    layers = {site.name: plan.layers[site.name] for site in sites if site.name in plan.layers}
    wanted = [site for site in sites if site.name in layers and _waits(layers[site.name], coded)]
    shelf = Shelf()
    for site, moment in bench.progress.track(moments_of(model, wanted, bench), label=how.rounding, total=len(wanted)):
        layer = layers[site.name]
        try:
            if isinstance(moment, RefusalError):
                raise moment
            _refine(site, layer, plan.codes(layer), moment, how, shelf)
        except RefusalError as refusal:
            layer.note = f"codes nearest: {refusal}"


def _waits(layer: Layer, coded: set[str]) -> bool:
    return layer.codes not in layer.rounded and any(key in coded for key in layer.nodes)


def _refine(site: Site, layer: Layer, codes: WeightCodes, moment: SecondMoment, how: Refinement, shelf: Shelf) -> None:
    layout = Layout.of(site)
    rows = layout.to_rows(site.array())
    scale = layer.scales[codes.name]
    _, before = rounded(rows, scale, grid=codes.signed, moment=moment, method="nearest")
    if how.scales == "mse":
        scale = _mse_scale(rows, scale, codes, moment)
    method = how.rounding
    found, after = rounded(rows, scale, grid=codes.signed, moment=moment, method=method, centred=how.correct_bias)
    layer.scales[codes.name] = scale
    if how.correct_bias:
        error = rows - dequantize(found, scale, axis=None if scale.ndim == 0 else 0)
        layer.correction = bias_correction(error, moment.mean)
    stored = (layout.from_rows(found).astype(np.int16) + codes.zero).astype(codes.grid.dtype)
    layer.rounded[codes.name] = shelf.put(stored)
    layer.note = f"{method} {before:.2%} → {after:.2%}"


def _mse_scale(rows: Array, scale: Floats, codes: WeightCodes, moment: SecondMoment) -> Floats:
    """Scales of the least squared error, of the shape of `scale`."""
    importance = importance_of(moment, rows=len(rows))
    if scale.ndim:
        return mse_scale(rows, codes.signed, importance=importance)
    wide = np.broadcast_to(importance, rows.shape).reshape(1, -1)
    return mse_scale(rows.reshape(1, -1), codes.signed, importance=wide).reshape(())
