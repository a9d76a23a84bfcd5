"""The best candidates of a search judged on samples that neither a pass nor the search has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxpress.calibration.calm import FOR_ONE
from onnxpress.calibration.feeds import Feed
from onnxpress.judging import Judge
from onnxpress.outcome import CompressionResult
from onnxpress.passes.base import Workbench
from onnxpress.passes.report import Report
from onnxpress.recipe import Recipe
from onnxpress.search.measure import Scales
from onnxpress.search.memory import gain_of
from onnxpress.search.plans import Plan
from onnxpress.search.trial import Trial
from onnxpress.search.workshop import Made
from onnxpress.stages import Stage

FINALISTS = 3
"""Candidates that are judged at most: the more are, the likelier one passes by luck."""

LEAST_GAIN = 1 / 0.98
"""Times better in bytes or memory: less is what normalisation drops, or noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finals:
    """Judges candidates.

    Attributes:
        scales: of the search; they know the input.
        judging: the samples.
        bench: brings metric, providers, threads, seed and progress.
        seconds: that timing takes about, on each provider.
    """

    scales: Scales
    judging: Feed
    bench: Workbench
    seconds: float

    def judge(self, plan: Plan, made: Made, trials: Sequence[Trial]) -> CompressionResult:
        """Measure a candidate; its `unmet` says what of the budget does not hold."""
        self.scales.calm.patience = max(self.scales.calm.patience, FOR_ONE * self.seconds)
        result = self._measured(plan, made.path, made.reports)
        result = replace(result, stages=self._paced(made), trials=tuple(trials))
        return replace(result, unmet=tuple(self._unmet(result)))

    def original(self, unmet: str, trials: Sequence[Trial]) -> CompressionResult:
        """The account of an input that nothing could be gained on."""
        result = self._measured(Plan("unchanged", ()), self.scales.source, ())
        return replace(result, version="original", trials=tuple(trials), unmet=(unmet,))

    def _paced(self, made: Made) -> tuple[Stage, ...]:
        """What each pass gained, with the latency by then where that is the goal."""
        if self.scales.budget.goal != "latency":
            return made.stages
        pace = self._judge.pace
        speeds = {position: pace.of(path) for position, path in made.models.items()}
        return tuple(replace(stage, speedup=speeds.get(k)) for k, stage in enumerate(made.stages))

    def _measured(self, plan: Plan, path: Path, reports: Sequence[Report]) -> CompressionResult:
        budget = self.scales.budget
        result = self._judge.account(
            path,
            recipe=Recipe(name=plan.name, passes=plan.passes, goal=budget.goal),
            version="compressed" if plan.passes else "normalised",
            reports=reports,
            max_drop=budget.max_drop,
            confidence=budget.confidence,
        )
        memory = (self.scales.memory, self.scales.memory_of(path)) if budget.goal == "memory" else None
        return replace(result, memory=memory)

    @property
    def _judge(self) -> Judge:
        """Latency is measured on the batches of the search: how fast the input runs them is known."""
        scales = self.scales
        return Judge(
            source=scales.source,
            feed=self.judging,
            timed=scales.feed,
            bench=self.bench,
            seconds=self.seconds,
            calm=scales.calm,
        )

    def _unmet(self, result: CompressionResult) -> Iterator[str]:
        budget, gain = self.scales.budget, self._gain(result)
        if not self._better(result):
            yield f"{self.scales.describe(gain)} as measured at last, which is no gain beyond noise"
        wanted = self.scales.wanted
        if wanted is not None and not gain >= wanted:
            yield f"{self.scales.describe(gain)}, the limit {budget.limit} asks for {wanted:.2f}"
        if result.gate is not None and not result.gate.held:
            yield result.gate.describe()
        if budget.sqnr is not None and not result.verification.sqnr >= budget.sqnr:
            yield f"SQNR is {result.verification.sqnr:.1f} dB, min_sqnr is {budget.sqnr:g}"

    def _gain(self, result: CompressionResult) -> float:
        if self.scales.budget.goal == "latency":
            return result.speedup
        return result.ratio if result.memory is None else gain_of(*result.memory)

    def _better(self, result: CompressionResult) -> bool:
        goal = self.scales.budget.goal
        if goal == "latency":
            return all(each.quartiles[0] > 1 for each in result.benchmarks)
        return self._gain(result) > LEAST_GAIN
