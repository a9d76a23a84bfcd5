"""8-bit weights, and activations whose range is found anew in every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import check_sole
from onnxpress.passes.quantize.coding import Coded, WeightCodes, bias_of, code, common_axis, weight_scale
from onnxpress.passes.quantize.host import detect
from onnxpress.passes.quantize.lstm import Setting
from onnxpress.passes.quantize.options import check_flag, check_number
from onnxpress.passes.quantize.others import fused_form, note_others
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.quantize.recurrent import key_of, plan_lstms, write_lstms
from onnxpress.passes.quantize.rules import is_standard, refusal
from onnxpress.passes.quantize.storage import check_float32, note_quantized, read_as_float, store
from onnxpress.passes.quantize.targets import caution, choose_target, say_codes
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, RefusalError, SitePass, check_choice
from onnxpress.rewriter.edits import add_node, detach, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import Site, Use, find_sites
from onnxpress.rewriter.weights import Array, Produced, Values, values_of

OPSET = 11
"""The first with DynamicQuantizeLinear."""

_TARGETS = ("cpu-avx2", "cpu-vnni", "arm")


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(SitePass):
    """Multiply matrices of 8-bit codes; the range of the activations is found in every run, so no samples are needed.

    x ≈ s_x (q_x − z_x), w ≈ s_w q_w, x·w ≈ s_x s_w Σ (q_x − z_x) q_w. Written as DynamicQuantizeLinear, MatMulInteger,
    Cast and Mul, which ONNX Runtime merges into DynamicQuantizeMatMul or MatMulIntegerToFloat. An LSTM becomes ONNX
    Runtime's DynamicQuantizeLSTM. Weights of other sites are stored as codes all the same and decoded once, when the
    model is loaded.

    The range is that of the whole batch, so what a sample gives depends a little on those beside it.

    Attributes:
        target: what the model is made for: cpu-avx2, cpu-vnni or arm; None for this machine's CPU.
        per_channel: one scale for each output channel of a weight instead of one a tensor.
        reduce_range: weights of 7 bits, for CPUs that add 8-bit products in 16 bits; None as the target needs it.
        embeddings: store tables that Gather reads as int8, too, and decode the rows that are asked for.
        layer_sqnr: LSTMs whose result on codes has a lower signal-to-noise ratio, in dB, compute in float; 0 takes all.
            Measured where there are samples, else that of their weights.
    """

    name: ClassVar[str] = "quantize-dynamic"
    target: Literal["cpu-avx2", "cpu-vnni", "arm"] | None = None
    per_channel: bool = True
    reduce_range: bool | None = None
    embeddings: bool = True
    layer_sqnr: float = 20.0

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.target is not None:
            check_choice(self, "target", _TARGETS)
        check_flag(self, "per_channel")
        check_flag(self, "reduce_range", optional=True)
        check_flag(self, "embeddings")
        check_number(self, "layer_sqnr")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Rewrite every MatMul, Gemm and LSTM with a constant weight.

        Raises:
            ModelError: the opset cannot be raised, or the result does not run.
        """
        report, before = self.report(), model.clone()
        note_quantized(model, report)
        self._raise_opset(model, report)
        note_others(model, report)
        setting = Setting(per_channel=self.per_channel, narrow=self._codes.name == "int7", layer_sqnr=self.layer_sqnr)
        sites = self.candidates(model, report)
        left = write_lstms(model, sites, plan_lstms(model, sites, setting, bench=bench), report)
        writer = _Writer(model)
        for site in bench.progress.track(left.sites, label=self.name):
            if not self.embeddings and any(use.node.op == "Gather" for use in site.uses):
                report.skip(site.name, "is an embedding; set embeddings to store it as int8")
            else:
                self._rewrite(model, site, writer, left.reasons, report)
        sweep(model)
        if writer.layers or left.count:
            self._say_target(report)
        if report.changes:
            prove(model, before, bench, name=self.name)
        return report

    @property
    def _codes(self) -> WeightCodes:
        target = choose_target(self.target, detect())
        return target.adjusted(activation=None, reduce_range=self.reduce_range).weights[0]

    def _say_target(self, report: Report) -> None:
        target = choose_target(self.target, detect()).adjusted(activation=None, reduce_range=self.reduce_range)
        asked = "as asked for" if self.reduce_range is not None else None
        report.change("graph", say_codes(target, [self._codes.name], detect(), asked=asked))
        if self.target is not None and (said := caution(target, detect())):
            report.warnings.append(said)

    def _raise_opset(self, model: Model, report: Report) -> None:
        old = model.opset
        uses = [use for site in find_sites(model) for use in site.uses]
        if old < OPSET and any(_refusal(use, {}) is None for use in uses):
            raise_opset(model, OPSET)
            report.change("graph", f"opset {old} became {OPSET}, the first with DynamicQuantizeLinear")

    def _rewrite(self, model: Model, site: Site, writer: _Writer, lstms: Mapping[str, str], report: Report) -> None:
        reasons = {id(use): _refusal(use, lstms) for use in site.uses}
        layers = [use for use in site.uses if reasons[id(use)] is None]
        others = tuple(use for use in site.uses if reasons[id(use)] is not None)
        grid = self._codes.grid
        try:
            check_float32(site)
            check_sole(model, site)
            axis = common_axis(site) if self.per_channel else None
            scale = weight_scale(site, axis=axis, grid=grid)
            if not layers:
                raise RefusalError
        except RefusalError:
            because = next((reason for reason in reasons.values() if reason), "")
            store(model, site, report, per_channel=self.per_channel, because=because)
            return
        before = site.nbytes
        coded = code(model, site, scale, axis=axis, grid=grid)
        for use in layers:
            writer.multiply(use, coded)
        read_as_float(model, others, coded)
        report.change(
            site.name,
            f"int8{' per channel' if axis is not None else ''}, activations uint8 by the range of each run",
            bytes_before=before,
            bytes_after=coded.nbytes,
            error=coded.error,
        )


def _refusal(use: Use, lstms: Mapping[str, str]) -> str | None:
    """Why a node cannot multiply codes; None where it can, and empty where nobody expects it."""
    node = use.node
    if node.op == "Gather":
        return ""
    if node.op == "Conv" and is_standard(node):
        return "ONNX Runtime has no Conv that is faster with ranges of each run"
    return lstms.get(key_of(node)) or fused_form(node) or refusal(use)


class _Writer:
    """Writes products of codes; activations that several layers read become codes once."""

    def __init__(self, model: Model) -> None:
        """Start with nothing written."""
        self.layers = 0
        self._model = model
        self._codes: dict[tuple[int, int], tuple[gs.Tensor, gs.Tensor, gs.Tensor]] = {}
        self._held: list[Coded] = []  # so that no identity below is used again
        self._weights: dict[int, gs.Tensor] = {}
        self._scales: dict[int, gs.Tensor] = {}

    def multiply(self, use: Use, coded: Coded) -> None:
        """Replace a MatMul or Gemm: y = float(Σ (q_x − z_x) q_w) · (s_x s_w) + b."""
        model, node, graph = self._model, use.node, use.graph
        source, bias, out = node.inputs[0], bias_of(node), node.outputs[0]
        transposed = bool(node.attrs.get("transB", 0))
        codes, step, zero = self._activation(graph, source)
        inputs = [codes, self._weight(coded, transposed=transposed), zero]
        total = add_node(model, graph, "MatMulInteger", inputs, hint="m")
        wide = add_node(model, graph, "Cast", [total], hint="c", attrs={"to": int(onnx.TensorProto.FLOAT)})
        both = add_node(model, graph, "Mul", [step, self._scale(coded)], hint="s")
        detach(node)
        if bias is None:
            add_node(model, graph, "Mul", [wide, both], hint="y", outputs=[out])
        else:
            product = add_node(model, graph, "Mul", [wide, both], hint="y")
            add_node(model, graph, "Add", [product, bias], hint="y", outputs=[out])
        self.layers += 1

    def _activation(self, graph: gs.Graph, source: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor, gs.Tensor]:
        key = (id(graph), id(source))  # what an inner graph computes is not seen outside of it
        if key not in self._codes:
            outputs = tuple(gs.Variable(self._model.names.fresh(hint)) for hint in ("x", "s", "z"))
            add_node(self._model, graph, "DynamicQuantizeLinear", [source], hint="q", outputs=outputs)
            self._codes[key] = (outputs[0], outputs[1], outputs[2])
        return self._codes[key]

    def _weight(self, coded: Coded, *, transposed: bool) -> gs.Tensor:
        """The codes as [in, out]."""
        if not transposed:
            return coded.codes
        key = id(coded)
        if key not in self._weights:
            self._held.append(coded)
            self._weights[key] = self._model.add_weight("w", _turned(values_of(coded.codes)))
        return self._weights[key]

    def _scale(self, coded: Coded) -> gs.Tensor:
        key = id(coded)
        if key not in self._scales:
            self._held.append(coded)
            self._scales[key] = self._model.add_weight("s", coded.scale)
        return self._scales[key]


def _turned(codes: Values) -> Array | Values:
    """[out, in] as [in, out]; a large one when it is written."""

    def turn() -> Array:
        return np.ascontiguousarray(codes.load().T)

    return turn() if codes.nbytes < LAZY else Produced(codes.shape[::-1], codes.dtype, turn)
