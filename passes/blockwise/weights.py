"""Weights alone as codes of 8, 4 or 2 bits: a file down to a fourteenth of the size, with the activations of float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.rounding import METHODS, NEED_SAMPLES, How, matrix_of
from onnxpress.passes.blockwise.weight_only import MERGED_BLOCKS, WeightOnly, check_usable, product_of
from onnxpress.passes.encode.functions import OLDEST_OPSET
from onnxpress.passes.quantize.options import check_flag
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.quantize.storage import note_quantized, store
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, SitePass, check_choice, wrong
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import Site

FORMS = ("auto", "run", "load")
_OPSETS = {8: 21, 4: 21, 2: 25}
"""The first with a blocked DequantizeLinear that takes codes of so many bits."""


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights(SitePass):
    """Store weights as codes, and compute in float.

    code = round(w / s) + z, w ≈ (code − z) · s. By default int8, one s a channel, no z. ONNX Runtime decodes them once,
    when it loads the model, so what runs is the float model at full speed; of embeddings, which stay codes, the rows
    asked for are decoded.

    With fewer bits, or a `block`, each stretch of `block` inputs of an output has its own s and z, s in float16 where
    that holds it; other weights than matrices have blocks along all that one output multiplies. Where the form is
    `run`, MatMul and Gemm read them through a blocked DequantizeLinear, which ONNX Runtime merges into MatMulNBits:
    weights stay codes in memory, too, and products of few rows, such as those of a language model that writes word by
    word, are faster than in float, but slower where there are many rows; activations become int8 in blocks on the way.
    The opset is raised where that needs it.

    Attributes:
        per_channel: one scale for each output channel (each row of an embedding) instead of one a tensor.
        bits: 8, 4 or 2.
        block: inputs that share a scale; 0 for all inputs of an output. None is 32 where bits are 4 or 2 or the form
            is `run`, else 0.
        method: `rtn` rounds to nearest; `hqq` finds better scales and zero points (Badri & Shaji, 2023); `gptq` rounds
            column by column, making up for errors (Frantar et al., 2023), and `awq` gives large inputs finer weights
            (Lin et al., 2023), both by samples.
        symmetric: no zero points; None is true of 8 bits only.
        form: `run`: codes stay codes under MatMul and Gemm; `load`: everything is decoded at load; `auto`: `run` for 4
            and 2 bits, as far as the installed ONNX Runtime merges it, else `load`.
    """

    name: ClassVar[str] = "quantize-weights"
    per_channel: bool = True
    bits: int = 8
    block: int | None = None
    method: str = "rtn"
    symmetric: bool | None = None
    form: str = "auto"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one of them means nothing, or not with the others.
        """
        super().__post_init__()
        check_flag(self, "per_channel")
        check_flag(self, "symmetric", optional=True)
        check_choice(self, "method", METHODS)
        check_choice(self, "form", FORMS)
        if self.bits not in _OPSETS or isinstance(self.bits, bool):
            raise wrong(self, "bits", "be 8, 4 or 2")
        sizes = (0, *MERGED_BLOCKS)
        if self.block is not None and (self.block not in sizes or isinstance(self.block, bool)):
            raise wrong(self, "block", f"be one of {', '.join(map(str, sizes))}, or left out")
        if self.form == "run" and self.block == 0:
            raise wrong(self, "block", "be at least 16 where the form is run")
        if not self.per_channel and not self._is_plain:
            raise wrong(self, "per_channel", "be true unless bits are 8 and block, method, symmetric and form left out")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Store every weight that gets smaller by it.

        Raises:
            FeedError: the method needs samples, and there are none.
            ModelError: the opset cannot be raised and the form is `run`, or the result does not run.
        """
        if self.method in NEED_SAMPLES and bench.feed is None:
            raise FeedError(f"{self.name}: {self.method} weighs errors by activations: give samples with --data")
        report = self.report()
        if self._is_plain:
            before = model.clone()
            for site in bench.progress.track(self.candidates(model, report), label=self.name):
                store(model, site, report, per_channel=self.per_channel, because="")
            sweep(model)
        else:
            note_quantized(model, report)
            form = self._prepare(model, report)
            before = model.clone()
            WeightOnly(model, self._how, report, bench, form=form).rewrite(self.candidates(model, report))
        if report.changes:
            prove(model, before, bench, name=self.name)
        return report

    @property
    def _is_plain(self) -> bool:
        """Whether weights are int8 with one scale a channel or tensor, decoded at load: what needs no blocks."""
        rest = self.block is None and self.method == "rtn" and self.symmetric is not False
        return self.bits == 8 and rest and self.form != "run"

    @property
    def _how(self) -> How:
        block = self.block
        if block is None:
            block = 32 if self.bits < 8 or self.form == "run" else 0
        symmetric = self.bits == 8 if self.symmetric is None else self.symmetric
        return How(self.bits, block or None, self.method, symmetric)

    def _prepare(self, model: Model, report: Report) -> str:
        """Raise the opset as far as the form needs it; gives the form that can be had.

        Raises:
            ModelError: it cannot be raised.
        """
        form = "load" if self.form == "auto" and (self.bits == 8 or not self._how.block) else self.form
        newest = OLDEST_OPSET if form == "load" else max(OLDEST_OPSET, _OPSETS[self.bits])
        if model.opset >= newest:
            return form
        sites = [site for site in self.candidates(model, self.report()) if self._is_usable(model, site)]
        if form != "load" and any(product_of(model, site) for site in sites):
            try:
                self._raise(model, _OPSETS[self.bits], f"a blocked DequantizeLinear of {self.bits} bits", report)
            except ModelError as error:
                if form == "run":
                    raise ModelError(f"{error}; set form load, which needs no newer operators") from error
                report.warnings.append(f"{error}: weights are decoded at load instead of running as codes")
                form = "load"
        if sites:
            self._raise(model, OLDEST_OPSET, "what decodes weights", report)
        return form

    def _is_usable(self, model: Model, site: Site) -> bool:
        """Whether a site will change: for others the opset stays, and `WeightOnly` tells why they do not."""
        try:
            check_usable(model, site, self._how)
            matrix_of(site)
        except RefusalError:
            return False
        return True

    def _raise(self, model: Model, version: int, why: str, report: Report) -> None:
        old = model.opset
        if raise_opset(model, version):
            report.change("graph", f"opset {old} became {version}, the first with {why}")
