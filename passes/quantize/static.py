"""8-bit weights and activations, with ranges known beforehand from samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from onnxpress.passes.balance.smooth import Smooth
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import INT8, UINT8
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pace import Pace
from onnxpress.passes.quantize.host import detect
from onnxpress.passes.quantize.lstm import Setting
from onnxpress.passes.quantize.mixing import Mix, in_float, measured_pace, mix, rank
from onnxpress.passes.quantize.options import check_flag, check_names, check_number, check_path
from onnxpress.passes.quantize.others import note_others
from onnxpress.passes.quantize.plan import Plan, calibrate, survey, try_out
from onnxpress.passes.quantize.precision import Demand
from onnxpress.passes.quantize.proof import prove
from onnxpress.passes.quantize.ranges import METHODS as RANGES
from onnxpress.passes.quantize.ranges import Estimate
from onnxpress.passes.quantize.ranges import Method as Estimator
from onnxpress.passes.quantize.reconstruct import METHODS
from onnxpress.passes.quantize.reconstruct import Method as Rounding
from onnxpress.passes.quantize.recurrent import plan_lstms
from onnxpress.passes.quantize.refine import SCALES, Refinement, Scales, refine
from onnxpress.passes.quantize.rules import FOLLOWERS, refusal
from onnxpress.passes.quantize.storage import note_quantized
from onnxpress.passes.quantize.targets import TARGETS, Target, caution, check_target, choose_target, say_codes
from onnxpress.passes.quantize.writing import write
from onnxpress.passes.report import Report
from onnxpress.passes.selection import SitePass, check_choice, wrong
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import find_sites

_ACTIVATIONS = {"uint8": UINT8, "int8": INT8}


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(SitePass):
    """Compute on codes where the target can: weights symmetric, activations with ranges seen in samples.

    x ≈ s_x (q_x − z_x), w ≈ s_w q_w, so w·x ≈ s_w s_x Σ q_w (q_x − z_x), summed in 32 bits; the bias is stored as
    int32 at scale s_x s_w (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). Written as QuantizeLinear and
    DequantizeLinear round float operators, which ONNX Runtime merges into QLinearConv, QGemm and so on. Weights of
    sites that cannot compute on codes are stored as codes all the same and decoded once, when the model is loaded.

    In order: ranges (`ranges`), codes of the weights (`scales`, `rounding`, `correct_bias`), a trial of each layer
    apart (`layer_sqnr`), then of the whole model, in which the layers that hurt most for their work go back to float
    until the outputs are good (`min_sqnr`, `max_drop`), and at last its speed (`faster`).

    Attributes:
        target: what the model is made for: cpu-avx2, cpu-vnni, arm, cuda, tensorrt or npu; None for this machine's CPU.
        activation: codes of activations; None for those of the target.
        per_channel: one scale for each output channel of a weight instead of one a tensor.
        reduce_range: weights of 7 bits, for CPUs that add 8-bit products in 16 bits; None for those of the target.
        smooth: move magnitude from activations into weights first (pass `smooth`), unless codes are not faster then.
        ranges: how ranges of activations follow from samples: `minmax`, `average`, `percentile`, `mse` or `entropy`.
        percent: of the entries that `percentile` keeps.
        calibration: a file of `onnxpress calibrate` that brings the ranges instead of samples.
        scales: of weights: `max`, at which none saturates, or `mse`, of the least squared error.
        rounding: of weights: `nearest`, `gptq` (Frantar et al., 2023) or `adaround` (Nagel et al., 2020).
        correct_bias: let biases take away the mean error of outputs (Nagel et al., 2019).
        layer_sqnr: layers whose result on codes has a lower signal-to-noise ratio, in dB, on samples and apart from all
            other layers, compute in float; 0 tries none.
        min_sqnr: signal to noise that every output of the model must keep on samples, in dB; 0 asks for none.
        max_drop: how far the metric may fall on the calibration samples; None asks for none.
        faster: compute in float after all where codes are not measured to be faster on this machine.
        ablate: report what each tensor on codes does to the outputs even where they are good.
        ops: operators that may compute on codes; None for all that the target has.
    """

    name: ClassVar[str] = "quantize-static"
    target: str | None = None
    activation: Literal["uint8", "int8"] | None = None
    per_channel: bool = True
    reduce_range: bool | None = None
    smooth: bool = False
    ranges: Estimator = "minmax"
    percent: float = 99.99
    calibration: str | None = None
    scales: Scales = "max"
    rounding: Rounding = "gptq"
    correct_bias: bool = False
    layer_sqnr: float = 20.0
    min_sqnr: float = 20.0
    max_drop: float | None = None
    faster: bool = False
    ablate: bool = False
    ops: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_target(self, "target")
        if self.activation is not None:
            check_choice(self, "activation", tuple(_ACTIVATIONS))
        if self.activation == "uint8" and self.target is not None and TARGETS[self.target].symmetric:
            raise wrong(self, "activation", f"be int8 for target {self.target}")
        for flag in ("per_channel", "smooth", "correct_bias", "faster", "ablate"):
            check_flag(self, flag)
        check_flag(self, "reduce_range", optional=True)
        for option, choices in (("ranges", RANGES), ("scales", SCALES), ("rounding", METHODS)):
            check_choice(self, option, choices)
        check_path(self, "calibration")
        if self.smooth and self.calibration is not None:
            raise ConfigError(f"{self.name}: a calibration file has the ranges before smooth; leave one of them out")
        check_number(self, "percent", most=100, above=True)
        check_number(self, "layer_sqnr")
        check_number(self, "min_sqnr")
        if self.max_drop is not None:
            check_number(self, "max_drop")
        check_names(self, "ops", FOLLOWERS)

    @property
    def times(self) -> bool:
        """See `Pass.times`."""
        return self.faster

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Measure, plan, and rewrite.

        Raises:
            FeedError: no samples, or ones that hold NaN or infinities.
            ConfigError: `max_drop` without a metric, or a calibration file that does not suit.
            ModelError: the result does not run.
        """
        if self.max_drop is not None and bench.metric is None:
            raise ConfigError(f"{self.name}: max_drop {self.max_drop:g} needs a metric: give top1 or module:function")
        report = self.report()
        note_quantized(model, report)
        if bench.feed is None and self.calibration is not None:
            report.warnings.append(
                "without samples weights get the nearest codes, and neither outputs nor speed were measured; give some "
                "with --data"
            )
        before, smoothing = model.clone(), self._smooth(model, bench)
        plan = self.plan(model, report, bench)
        floats, said, pace = self._settle(model, before, plan, report, bench)
        if pace is not None and pace.slower:
            if smoothing is not None:
                model.reset(before.skeleton())
                plan, smoothing = replace(self, smooth=False).plan(model, self.report(), bench), None
            floats = in_float(plan, f"on codes the model is only {pace.describe('in float')}")
        if smoothing is not None:
            report.changes.extend(replace(each, action=f"smooth: {each.action}") for each in smoothing.changes)
            report.skips.extend(replace(each, reason=f"smooth: {each.reason}") for each in smoothing.skips)
        placement = write(model, plan, report, floats=floats)
        note_others(model, report)
        for each in said:
            report.change("graph", each)
        if placement.coded or placement.recurrent:
            self._say_target(plan, report)
        elif report.changes:
            report.warnings.append(
                "no layer computes in int8: weights are stored in 8 bits and decoded while the model is loaded, so it "
                "is smaller but not faster; each change says why"
            )
        if report.changes:
            prove(model, before, bench, name=self.name)
        return report

    def plan(self, model: Model, report: Report, bench: Workbench) -> Plan:
        """All that is known before anything is written: `write` can then be called on clones again and again.

        Args:
            model: its opset is raised where that is needed.
            report: gets that, and a skip for each site that is not touched.
            bench: brings samples.
        """
        target = self._target()
        obstacle = self._raise_opset(model, target, report, bench)
        sites = self.candidates(model, report)
        plan = survey(model, sites, target=target, per_channel=self.per_channel, ops=self.ops, obstacle=obstacle)
        if target.recurrent and (self.ops is None or "LSTM" in self.ops):
            narrow = target.weights[0].name == "int7"
            setting = Setting(per_channel=self.per_channel, narrow=narrow, layer_sqnr=self.layer_sqnr)
            plan.recurrent = plan_lstms(model, sites, setting, bench=bench)
        estimate = Estimate(method=self.ranges, percent=self.percent, grid=target.activation)
        file = None if self.calibration is None else Path(self.calibration)
        calibrate(model, plan, bench, estimate=estimate, calibration=file)
        if bench.feed is not None:
            how = Refinement(scales=self.scales, rounding=self.rounding, correct_bias=self.correct_bias)
            refine(model, plan, sites, bench, how)
            if self.layer_sqnr and plan.ranges:
                try_out(model, plan, sites, bench, layer_sqnr=self.layer_sqnr)
                refine(model, plan, sites, bench, how)  # those that got other codes
        return plan

    def _smooth(self, model: Model, bench: Workbench) -> Report | None:
        """Even out what layers read, where that is asked for."""
        if not self.smooth:
            return None
        report = Smooth(include=self.include, exclude=self.exclude, min_size=self.min_size).apply(model, bench)
        sweep(model)
        return report

    def _settle(
        self, model: Model, before: Model, plan: Plan, report: Report, bench: Workbench
    ) -> tuple[dict[str, str], list[str], Pace | None]:
        """Which layers must compute in float for the sake of the outputs, and why; what was measured; and the speed."""
        floats: dict[str, str] = {}
        said: list[str] = []
        demand = Demand(min_sqnr=self.min_sqnr, max_drop=self.max_drop)
        layers = bool(plan.place(model).coded) or (plan.recurrent is not None and bool(plan.recurrent.levels))
        if not layers or bench.feed is None:
            return floats, said, None
        if not demand.empty:
            found = mix(model, plan, bench, demand)
            floats, report.harms = found.floats, found.harms
            said.append(self._outcome(found, report))
        if self.ablate and not report.harms:
            report.harms = rank(model, plan, bench)
        if self.faster and plan.target.suits(detect()) and len(floats) < len(in_float(plan, "")):
            pace = measured_pace(model, plan, floats, bench, reference=before)
            return floats, [*said, pace.describe("in float")], pace
        return floats, said, None

    def _outcome(self, found: Mix, report: Report) -> str:
        """The outputs of the model as planned, in words; a warning where they are not good enough."""
        if not found.held:
            report.warnings.append(
                f"even with every layer in float the outputs keep only {found.verdict.describe()} with weights in 8 "
                "bits; exclude weights, or ask for less (min_sqnr, max_drop)"
            )
        left = f", {len(found.floats)} layers left in float for it" if found.floats else ""
        return f"outputs on samples: {found.verdict.describe()}{left}"

    def _target(self) -> Target:
        activation = None if self.activation is None else _ACTIVATIONS[self.activation]
        return choose_target(self.target, detect()).adjusted(activation=activation, reduce_range=self.reduce_range)

    def _say_target(self, plan: Plan, report: Report) -> None:
        used = {plan.codes(layer).name for layer in plan.layers.values()}
        asked = "as asked for" if self.reduce_range is not None else None
        report.change("graph", say_codes(plan.target, used, detect(), asked=asked))
        if self.target is not None and (said := caution(plan.target, detect())):
            report.warnings.append(said)

    def _raise_opset(self, model: Model, target: Target, report: Report, bench: Workbench) -> str | None:
        """Make sure that the model's opset knows the codes; gives the reason why it cannot be raised."""
        old, opset = model.opset, target.opset
        uses = [use for site in find_sites(model) for use in site.uses if use.graph is model.graph]
        if old >= opset or all(refusal(use, rules=target.rules, ops=self.ops) for use in uses):
            return None
        try:
            raise_opset(model, opset)
        except ModelError as error:
            return f"{error}; export the model with opset {opset} or newer"
        why = "one scale a channel" if opset == 13 else "codes of 16 bits"
        report.change("graph", f"opset {old} became {opset}, the first with {why}")
        # What was an attribute may be an input now, and comes as a Constant node.
        Normalise(fix_defaults=False, inline_functions=False).apply(model, bench)
        sweep(model)
        return None
