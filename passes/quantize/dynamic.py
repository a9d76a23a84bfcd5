"""8-bit weights, and activations whose range is found anew in every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.quantize.coding import Coded, bias_of, code, common_axis, weight_grid, weight_scale
from onnxpress.passes.quantize.host import Host, detect
from onnxpress.passes.quantize.options import check_flag
from onnxpress.passes.quantize.placement import refusal
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.quantize.storage import check_float32, note_quantized, read_as_float, store
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, SitePass
from onnxpress.rewriter.edits import add_node, detach, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import Site, Use, find_sites
from onnxpress.rewriter.weights import read

OPSET = 11
"""The first with DynamicQuantizeLinear."""

OPERATORS = ("MatMul", "Gemm")


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(SitePass):
    """Multiply matrices of 8-bit codes; the range of the activations is found in every run, so no samples are needed.

    x ≈ s_x (q_x − z_x), w ≈ s_w q_w, x·w ≈ s_x s_w Σ (q_x − z_x) q_w. Written as DynamicQuantizeLinear, MatMulInteger,
    Cast and Mul, which ONNX Runtime merges into DynamicQuantizeMatMul or MatMulIntegerToFloat. Weights of other sites
    are stored as codes all the same and decoded once, when the model is loaded.

    Attributes:
        per_channel: one scale for each output channel of a weight instead of one a tensor.
        reduce_range: weights of 7 bits, for CPUs that add 8-bit products in 16 bits; None asks this machine's CPU.
        embeddings: store tables that Gather reads as int8, too, and decode the rows that are asked for.
    """

    name: ClassVar[str] = "quantize-dynamic"
    per_channel: bool = True
    reduce_range: bool | None = None
    embeddings: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_flag(self, "per_channel")
        check_flag(self, "reduce_range", optional=True)
        check_flag(self, "embeddings")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Rewrite every MatMul and Gemm with a constant weight.

        Raises:
            ModelError: the opset cannot be raised, or the result does not run.
        """
        report, before, host = self.report(), model.clone(), detect()
        note_quantized(model, report)
        self._raise_opset(model, report)
        writer = _Writer(model)
        for site in bench.progress.track(self.candidates(model, report), label=self.name):
            if not self.embeddings and any(use.node.op == "Gather" for use in site.uses):
                report.skip(site.name, "is an embedding; set embeddings to store it as int8")
            else:
                self._rewrite(model, site, writer, host, report)
        sweep(model)
        if writer.layers:
            report.change("graph", self._bits(host))
        if report.changes:
            prove(model, before, bench, name=self.name)
        return report

    def _raise_opset(self, model: Model, report: Report) -> None:
        old = model.opset
        uses = [use for site in find_sites(model) for use in site.uses]
        if old < OPSET and any(_refusal(use) is None for use in uses):
            raise_opset(model, OPSET)
            report.change("graph", f"opset {old} became {OPSET}, the first with DynamicQuantizeLinear")

    def _rewrite(self, model: Model, site: Site, writer: _Writer, host: Host, report: Report) -> None:
        reasons = {id(use): _refusal(use) for use in site.uses}
        layers = [use for use in site.uses if reasons[id(use)] is None]
        others = tuple(use for use in site.uses if reasons[id(use)] is not None)
        narrow = host.saturates if self.reduce_range is None else self.reduce_range
        grid = weight_grid(narrow=narrow)
        try:
            check_float32(site)
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

    def _bits(self, host: Host) -> str:
        narrow = host.saturates if self.reduce_range is None else self.reduce_range
        why = "as asked for" if self.reduce_range is not None else f"{host.describe()} runs it"
        return f"weights of {7 if narrow else 8} bits: {why}"


def _refusal(use: Use) -> str | None:
    """Why a node cannot multiply codes; None where it can."""
    if use.node.op not in OPERATORS:
        return f"ONNX Runtime has no {use.node.op} that is faster with ranges of each run"
    return refusal(use)


class _Writer:
    """Writes products of codes; activations that several layers read become codes once."""

    def __init__(self, model: Model) -> None:
        """Start with nothing written."""
        self.layers = 0
        self._model = model
        self._codes: dict[tuple[int, int], tuple[gs.Tensor, gs.Tensor, gs.Tensor]] = {}
        self._weights: dict[tuple[int, bool], gs.Tensor] = {}
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
        key = (id(coded.codes), transposed)
        if key not in self._weights:
            self._weights[key] = self._model.add_weight("w", np.ascontiguousarray(read(coded.codes).T))
        return self._weights[key]

    def _scale(self, coded: Coded) -> gs.Tensor:
        key = id(coded.codes)  # the graph keeps them, so no other weight gets this identity
        if key not in self._scales:
            scale: Floats = coded.scale
            self._scales[key] = self._model.add_weight("s", scale)
        return self._scales[key]
