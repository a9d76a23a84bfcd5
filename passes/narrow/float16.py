"""Floating-point numbers of 16 bits: in the file alone, or also in what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from onnxpress.calibration.metrics import Comparison
from onnxpress.calibration.providers import CPU, provider_name
from onnxpress.passes.base import Workbench
from onnxpress.passes.narrow.check import compare, in_types_of, tell
from onnxpress.passes.narrow.compute import Computing
from onnxpress.passes.narrow.formats import FORMATS
from onnxpress.passes.narrow.masks import bound_masks
from onnxpress.passes.narrow.opset import raise_for
from onnxpress.passes.narrow.weights import OVERHEAD, Narrowing, Weight, store_weights, weights_of
from onnxpress.passes.quantize.options import check_flag, check_number
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.report import Report
from onnxpress.passes.selection import SitePass, check_choice, wrong
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.constants import constant_nodes_to_initializers
from onnxpress.rewriter.shapes import Shapes

Form: TypeAlias = Literal["store", "compute"]

FORMS: tuple[Form, ...] = ("store", "compute")

FLOAT32_PROVIDERS = frozenset([CPU, "XnnpackExecutionProvider", "DnnlExecutionProvider", "OpenVINOExecutionProvider"])
"""Execution providers that compute in float32 whatever the file says, or nearly so."""


@dataclass(frozen=True, kw_only=True)
class ConvertFloat16(SitePass):
    """Store weights in 16 bits, and compute in 16 bits where the hardware does.

    Two forms. `store`: a weight is 16 bits in the file; a Cast, which ONNX Runtime folds when it loads the model, makes
    it float32, so the file is half the size and what runs is the float32 graph. `compute`: operators read and write 16
    bits, with Casts around those that must not: what ONNX or the execution provider has only in float32, what
    overflows on the samples, what loses digits (sums of many numbers, powers, counts, small epsilons). Weights of the
    latter are stored in 16 bits all the same.

    Weights that would become infinite or lose digits stay float32. Masks of Softmax below the format's range are raised
    into it, which Softmax does not notice. Where NaN or infinities come up on the samples, the nodes in which they
    begin are kept in float32, until none are left.

    Attributes:
        dtype: `float16` (11 digits, up to 65,504) or `bfloat16` (8 digits, the range of float32).
        form: `store` or `compute`; None: `compute` where the first execution provider computes in 16 bits.
        keep_io: the graph's inputs and outputs stay float32.
        clip: weights beyond the range become its greatest number instead of staying float32.
        headroom: activations may become that many times larger than on the samples before they overflow.
    """

    name: ClassVar[str] = "convert-float16"
    dtype: str = "float16"
    form: Form | None = None
    keep_io: bool = True
    clip: bool = False
    headroom: float = 4.0

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "dtype", tuple(FORMATS))
        if self.form is not None:
            check_choice(self, "form", FORMS)
        check_flag(self, "keep_io")
        check_flag(self, "clip")
        check_number(self, "headroom")
        if self.headroom < 1:
            raise wrong(self, "headroom", "be at least 1")
        if not self.keep_io and self.form == "store":
            raise wrong(self, "keep_io", "be true where form is store, for the graph computes in float32")
        if not self.keep_io and self.dtype == "bfloat16":
            raise wrong(self, "keep_io", "be true for bfloat16, which NumPy's arrays cannot hold")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Convert, run, compare.

        Raises:
            ModelError: the opset cannot be raised, or the result does not run.
        """
        report, before = self.report(), model.clone()
        form = self._form(bench, report)
        constant_nodes_to_initializers(model, Shapes())
        narrowing = Narrowing(kind=FORMATS[self.dtype], clip=self.clip, min_size=self.min_size)
        raise_for(model, narrowing.kind, report, providers=bench.providers if form == "compute" else ())
        if form == "store":
            found = self._store(model, before, narrowing, bench, report)
        else:
            computing = Computing(
                narrowing=narrowing,
                include=self.include,
                exclude=self.exclude,
                keep_io=self.keep_io,
                headroom=self.headroom,
            )
            found = computing.convert(model, bench, report)
        prove(model, before, bench if self.keep_io else in_types_of(model, bench), name=self.name)
        tell(found, self.dtype, report)
        return report

    def _store(
        self, model: Model, before: Model, narrowing: Narrowing, bench: Workbench, report: Report
    ) -> Mapping[str, Comparison]:
        bound_masks(model, narrowing.kind, report, least=2 * OVERHEAD)
        store_weights(model, self._chosen(model, report), narrowing, report)
        sweep(model)
        return compare(model, before, bench)

    def _chosen(self, model: Model, report: Report) -> list[Weight]:
        """The weights that the options choose; the others are skipped."""
        chosen = []
        for weight in weights_of(model):
            if weight.matches(self.include) and not weight.matches(self.exclude):
                chosen.append(weight)
            else:
                report.skip(weight.name, "excluded by the recipe")
        if report.skips and not chosen:
            report.warnings.append("include and exclude leave none of the weights; see `onnxpress inspect`")
        return chosen

    def _form(self, bench: Workbench, report: Report) -> Form:
        """The form, and why."""
        first = provider_name(bench.providers[0])
        slow = first in FLOAT32_PROVIDERS
        if self.form is not None:
            form, why = self.form, "as asked for"
            if form == "compute" and slow:
                report.warnings.append(
                    f"{first} computes in float32 and casts back and forth around it: form store runs faster there, "
                    "and what computes in 16 bits for real rounds more often than the comparison here shows"
                )
        elif not self.keep_io:
            form, why = "compute", "the graph's inputs and outputs are to be 16 bits"
        elif slow:
            form, why = "store", f"{first} computes in float32"
        else:
            form, why = "compute", f"{first} computes in {self.dtype}"
        report.change("graph", f"form {form}: {why}")
        return form
