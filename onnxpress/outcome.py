"""What a compression comes to: the result, its limits, and what can be wrong with it.

OnnxpressError
├── LimitNotMet
│   └── LimitsNotMet     with the result that does not hold them
└── ResultError          the passes made a model that does not run: a bug
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnxpress.benchmark import Benchmark
from onnxpress.calibration.calm import SLOWED
from onnxpress.calibration.metrics import ROUNDING
from onnxpress.parity import Verification
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.report import Report
from onnxpress.recipe import Limits, Recipe
from onnxpress.rewriter.errors import LimitNotMet, OnnxpressError
from onnxpress.transport import Transport

if TYPE_CHECKING:
    from onnxpress.difference import Difference
    from onnxpress.search.bootstrap import Drop
    from onnxpress.search.trial import Trial
    from onnxpress.stages import Stage

WORRYING = 10.0
"""SQNR in dB below which outputs differ so much that only a task's own metric can say whether it matters."""
SHRUNK = 0.98
"""Share of the input's bytes below which a file got smaller by more than what normalisation drops."""
Version = Literal["compressed", "normalised", "original"]


class ResultError(OnnxpressError):
    """The passes made a model that ONNX Runtime does not run: a bug in one of them."""


class LimitsNotMet(LimitNotMet):
    """A limit does not hold; `result` tells what was measured."""

    def __init__(self, result: CompressionResult, *, kept: str | None = None) -> None:
        """Say which.

        Args:
            result: of the run.
            kept: what was written all the same, in words.
        """
        if kept is None:
            kept = f"the model is in {result.path}" if result.path else "nothing was written (--keep would)"
        super().__init__(f"{'; '.join(result.unmet)}; {kept}")
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionResult:
    """What a run made, and what was measured.

    Attributes:
        source: the input model; None where it was given in memory.
        path: of the result; None where a limit was not met and nothing was written.
        recipe: what was done.
        version: which model was delivered: the compressed one, or an earlier one that is better in the goal.
        bytes_before: of all files of the input.
        bytes_after: of all files of the result.
        hashes_before: SHA-256 by file name, of the input.
        hashes_after: the same of the result.
        reports: what each pass did.
        verification: input against result, on each provider.
        benchmarks: input against result, on each provider.
        unmet: each limit that does not hold, with the figures.
        warnings: what the user must know although nothing failed.
        seconds: of the whole run.
        transport: the result as it travels; None where that was not asked for, or nothing was written.
        gate: how sure it is that the metric fell by no more than it may; None where no confidence was asked for.
        memory: bytes that loading and running take at most, of the input and of the result; None where that was not
            the goal.
        stages: the model after each pass, in order; empty where that was not measured.
        trials: what a search tried, in order; empty where a recipe was followed.
        difference: where the graphs of input and result differ; None where that was not looked at.
    """

    source: Path | None
    path: Path | None
    recipe: Recipe
    version: Version
    bytes_before: int
    bytes_after: int
    hashes_before: dict[str, str]
    hashes_after: dict[str, str]
    reports: tuple[Report, ...]
    verification: Verification
    benchmarks: tuple[Benchmark, ...]
    unmet: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    transport: Transport | None = None
    gate: Drop | None = None
    memory: tuple[int, int] | None = None
    stages: tuple[Stage, ...] = ()
    trials: tuple[Trial, ...] = ()
    difference: Difference | None = None

    @property
    def ratio(self) -> float:
        """How many times smaller the result is."""
        return self.bytes_before / self.bytes_after

    @property
    def speedup(self) -> float:
        """How many times faster the result is, on the provider where it gains least."""
        return min(each.speedup for each in self.benchmarks)

    def __repr__(self) -> str:
        from onnxpress import notebook  # which shows results, so it imports this module

        return notebook.of_result(self)

    def _repr_html_(self) -> str:
        from onnxpress import notebook

        return notebook.result_html(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one limit holds.

    Attributes:
        gate: the limit, as `min_sqnr`; of parity with its provider, as `parity.CPUExecutionProvider`.
        measured: what was measured; None where it was not.
        limit: what it must keep to.
        unit: of both, `dB`, `bytes`, `s`, `times`; empty for the metric's own.
        holds: whether it does.
        sentence: both in words.
    """

    gate: str
    measured: float | None
    limit: float
    unit: str
    holds: bool
    sentence: str


def unmet(result: CompressionResult, limits: Limits) -> Iterator[str]:
    """Each limit that does not hold, with the figures."""
    return (each.sentence for each in verdicts(result, limits) if not each.holds)


def verdicts(result: CompressionResult, limits: Limits) -> Iterator[Verdict]:
    """Each stated limit, and whether it holds; what was not measured does not."""
    if limits.max_drop is not None:
        yield _drop(result, limits.max_drop, limits.confidence)
    if limits.min_sqnr is not None:
        sqnr, least = result.verification.sqnr, limits.min_sqnr
        yield Verdict("min_sqnr", sqnr, least, "dB", sqnr >= least, f"SQNR is {sqnr:.1f} dB, min_sqnr is {least:g}")
    if limits.max_bytes is not None:
        nbytes, most = result.bytes_after, limits.max_bytes
        said = f"the model takes {nbytes:,} bytes, max_bytes is {most:,}"
        yield Verdict("max_bytes", nbytes, most, "bytes", nbytes <= most, said)
    if limits.min_speedup is not None:
        speed, wanted = result.speedup, limits.min_speedup
        said = f"the speed-up is {speed:.2f}, min_speedup is {wanted:g}"
        yield Verdict("min_speedup", speed, wanted, "times", speed >= wanted, said)
    for provider, least in (limits.parity or {}).items():
        yield _parity(result.verification, provider, least)
    yield from _load(result.benchmarks, limits)


def _drop(result: CompressionResult, limit: float, confidence: float | None) -> Verdict:
    """How far the metric fell, and how sure that is where a confidence is stated."""
    drop, metric, gate = result.verification.drop, result.verification.metric, result.gate
    if drop is None:
        return Verdict("max_drop", None, limit, "", False, f"no metric was measured, max_drop is {limit:g}")
    said, sure = f"{metric} fell by {drop:.4g}", True
    if confidence is not None:
        sure = gate is not None and gate.probability is not None and gate.probability >= confidence
        said = gate.describe() if gate is not None else f"{said}; how sure that is was not measured"
        said += f"; confidence is {confidence:g}"
    return Verdict("max_drop", drop, limit, "", drop <= limit + ROUNDING and sure, f"{said}, max_drop is {limit:g}")


def _parity(verification: Verification, provider: str, least: float) -> Verdict:
    """The SQNR on one provider."""
    gate = f"parity.{provider}"
    found = [each.sqnr for each in verification.providers if each.provider == provider]
    if not found:
        return Verdict(
            gate, None, least, "dB", False, f"nothing was measured on {provider}, its parity is {least:g} dB"
        )
    said = f"SQNR on {provider} is {found[0]:.1f} dB, its parity is {least:g}"
    return Verdict(gate, found[0], least, "dB", found[0] >= least, said)


def _load(benchmarks: Sequence[Benchmark], limits: Limits) -> Iterator[Verdict]:
    """How long the result takes to load, on the provider where that is worst."""
    if (most := limits.max_load_seconds) is not None:
        worst = max(each.second.load_seconds for each in benchmarks)
        said = f"loading takes {worst:.3g} s, max_load_seconds is {most:g}"
        yield Verdict("max_load_seconds", worst, most, "s", worst <= most, said)
    if (most := limits.max_load_ratio) is not None:
        worst = max(each.second.load_seconds / each.first.load_seconds for each in benchmarks)
        said = f"loading takes {worst:.2f} times as long as the input, max_load_ratio is {most:g}"
        yield Verdict("max_load_ratio", worst, most, "times", worst <= most, said)


def cautions(result: CompressionResult, *, calibrated: bool, separate: bool) -> Iterator[str]:
    """What the user must know although nothing failed.

    Args:
        result: what was made and measured.
        calibrated: samples were given to the passes.
        separate: other samples were given to judge by.
    """
    if result.recipe.needs_data and not calibrated:
        yield (
            f"{result.recipe.name} learns from samples, and none were given: made-up inputs or rules of thumb took "
            "their place, so the result may be useless on real ones; give samples (--data)"
        )
    yield from _of_passes(result)
    yield from _of_outputs(result, "--test" if separate else "--data")
    if calibrated and not separate and not result.trials:  # a search parts them
        yield from _of_judges(result)
    if result.bytes_after > result.bytes_before:
        yield f"the result is larger than the input: {result.bytes_after:,} bytes, {result.bytes_before:,} before"
    for each in result.benchmarks:
        if each.quartiles[1] < 1:
            yield f"the result is slower than the input: {each.speedup:.2f} times its speed on {each.provider}"
        if each.slowed > SLOWED:
            yield (
                f"the machine was disturbed while latency was measured on {each.provider}: the input took "
                f"{each.slowed:.2f} times as long as before, so {each.speedup:.2f} times as fast may be off; measure "
                "again on a quiet machine (onnxpress bench)"
            )


def _of_passes(result: CompressionResult) -> Iterator[str]:
    """What passes warn of, and those that came to nothing."""
    changed = {report.name for report in result.reports if report.changes}  # by one pass or by two that share the work
    for report in result.reports:
        yield from (f"{report.name}: {warning}" for warning in report.warnings)
        if report.name not in (Normalise.name, *changed):
            yield f"{report.name} changed nothing; {_why(report)}"
    sparing = any(each.name.startswith(("prune-", "share-", "binarize")) and each.changes for each in result.reports)
    encoded = any(each.name == Encode.name for each in result.reports)
    if sparing and not encoded and result.bytes_after > SHRUNK * result.bytes_before:
        yield "zeros and shared values make a file smaller only through encode: add it as the last pass"


def _of_judges(result: CompressionResult) -> Iterator[str]:
    """Samples that judge what was learned from them."""
    learned = dict.fromkeys(each.name for each in result.recipe.passes if each.learns)
    if learned:
        yield (
            f"the outputs are judged on the samples that {' and '.join(learned)} learned from, where they are better "
            "than elsewhere: give others to judge by (--test)"
        )
    elif result.recipe.needs_data and result.verification.metric is not None:
        yield "the metric was measured on the samples that calibrated; give others by test (--test)"


def _why(report: Report) -> str:
    """Where to read on, or the reason where there is but one."""
    reasons = {skip.reason for skip in report.skips}
    if len(report.skips) == 1:
        return f"{report.skips[0].site}: {reasons.pop()}"
    return "the report says why for each weight"


def _of_outputs(result: CompressionResult, option: str) -> Iterator[str]:
    """Outputs, or a metric, that say much or nothing."""
    changed = any(change.error for report in result.reports for change in report.changes)
    judged = all(each.judged for each in result.verification.providers)
    if result.version == "compressed" and changed and judged and result.verification.sqnr == math.inf:
        yield f"the samples do not reach the changed weights, so nothing is proven; give other samples ({option})"
    for parity in result.verification.providers:
        if parity.judged and not parity.sqnr >= WORRYING:
            yield (
                f"the outputs on {parity.provider} keep only {parity.sqnr:.1f} dB above the error: judge by a metric "
                "(--metric), or ask for less"
            )
        for which, value in (("before", parity.metric_before), ("after", parity.metric_after)):
            if value is not None and math.isnan(value):
                yield (
                    f"{result.verification.metric} is not a number {which} compression on {parity.provider}, so it "
                    "says nothing: look at the metric, and at the samples"
                )
