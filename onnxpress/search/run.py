"""From a model and a budget to the best model within it, or the reasons why there is none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxpress.artifact import Artifact
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.host import versions
from onnxpress.outcome import CompressionResult, unmet
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.measuring import opening
from onnxpress.passes.idle import why_idle
from onnxpress.passes.normalise import Normalise
from onnxpress.recipe import Limits, plain
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.search.budget import Budget
from onnxpress.search.finals import FINALISTS, LEAST_GAIN, Finals
from onnxpress.search.ledger import Ledger, code_of, fingerprint
from onnxpress.search.measure import Scales
from onnxpress.search.parts import Parts, part
from onnxpress.search.plans import Plan
from onnxpress.search.search import Search
from onnxpress.search.trial import Trial
from onnxpress.search.workshop import Workshop

FEW = 30
"""Samples below which draws from them hardly differ, so that a confidence looks better than it is."""


_SLOW, _WIDE = 0.2, 100_000_000
"""Seconds and bytes of memory that loading may take more before that is worth a warning."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One search, up to the finished file.

    Attributes:
        model: the input, in memory.
        source: the input, as a file.
        made: where the result goes.
        budget: what is to be gained, and what it may cost.
        bench: brings all samples for the passes, metric, providers, threads, seed and progress.
        judging: samples to judge by; None where those of the workbench are parted.
        seconds: that timing takes about, on each provider.
        limits: what the result must keep to besides.
    """

    model: Model
    source: Path
    made: Path
    budget: Budget
    bench: Workbench
    judging: Feed | None
    seconds: float
    limits: Limits

    def result(self, folder: Path) -> CompressionResult:
        """Search, judge the best, and put it, or the input, in its place.

        Args:
            folder: of the search.

        Raises:
            OnnxpressError: the input cannot be run, or the folder not be used.
        """
        parts = self._parts()
        ledger = Ledger(folder, self._what(parts))
        workshop = Workshop(folder, replace(self.bench, feed=parts.learn))
        workshop.start(self.model, Normalise())
        scales = Scales(self.source, self.budget, parts.choose, self.bench)
        search = Search(workshop, scales, ledger, replace(self.bench, feed=parts.learn))
        scales.try_input()
        self._check_confidence(scales)
        found = search.run()
        finals = Finals(scales=scales, judging=parts.judge, bench=self.bench, seconds=self.seconds)
        result, notes = self._judged(found, finals, workshop, ledger)
        made = Artifact.of(self.made)  # stored under its own name, so with other hashes than in the folder
        notes += [*search.ahead.notes, *self._loading(result)]
        warnings = (*self._warnings(parts), *result.verification.warnings, *parts.warnings, *_doubts(result), *notes)
        return replace(result, warnings=warnings, bytes_after=made.nbytes, hashes_after=made.hashes())

    def _loading(self, result: CompressionResult) -> list[str]:
        """What it takes to load weights that are encoded: candidates were made without measuring it."""
        coded = result.version == "compressed" and any(isinstance(each, Encode) for each in result.recipe.passes)
        found = opening(self.model, Model.load(self.made), self.bench) if coded else None
        if found is None or (found.seconds < _SLOW and (found.nbytes or 0) < _WIDE):
            return []
        memory = "" if found.nbytes is None else f" and {found.nbytes / 1e6:,.0f} MB more memory meanwhile"
        less = "a recipe with `encode: {huffman: false}` takes less"
        return [f"loading it takes {found.seconds:.2g} s longer{memory}; {less}"]

    def _check_confidence(self, scales: Scales) -> None:
        """Refuse a confidence that no candidate can have, before any is made.

        Raises:
            ConfigError: one is stated, and the metric cannot be taken of samples drawn again.
        """
        scores = scales.scores
        wanted = self.limits.confidence is not None and self.budget.max_drop is not None
        if wanted and scores is not None and scores.rows is None and scores.pieces is None:
            raise ConfigError(
                f"confidence {self.limits.confidence:g}: how sure a drop is cannot be said, for this metric cannot be "
                "taken of samples drawn again; leave confidence out, and what was measured judges alone"
            )

    def _judged(
        self, found: Sequence[tuple[Plan, Trial]], finals: Finals, workshop: Workshop, ledger: Ledger
    ) -> tuple[CompressionResult, list[str]]:
        """The best that stands the last judgement, else the input, and what is to be said of those that did not."""
        least = 1.0 if self.budget.goal == "latency" else LEAST_GAIN
        reasons: list[str] = []
        failed: list[Trial] = []
        for plan, trial in [each for each in found if each[1].gain > least]:
            if len(failed) == FINALISTS:
                break
            if not all(trial.surer_than(each) for each in failed):
                continue  # one that is no surer than what failed is likelier to pass by luck
            made = workshop.make(plan)
            judged = finals.judge(plan, made, ledger.trials)
            failing = dict.fromkeys((*judged.unmet, *unmet(judged, self.limits)))
            if not failing:
                Model.load(made.path).save(self.made)
                told = f"{len(reasons)} that seemed better did not stand the last judgement: {' | '.join(reasons)}"
                return judged, [told] if reasons else []
            failed.append(trial)
            reasons.append(f"{trial.name}: {'; '.join(failing)}")
        self._copy()
        return finals.original(_why(reasons, ledger.trials, self.model), ledger.trials), []

    def _parts(self) -> Parts:
        assert self.bench.feed is not None
        with Runner(self.source, providers=self.bench.providers[:1], threads=self.bench.threads) as runner:
            return part(self.bench.feed, self.judging, runner.input_specs)

    def _warnings(self, parts: Parts) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*parts.learn.warnings, *parts.judge.warnings)))

    def _what(self, parts: Parts) -> dict[str, object]:
        """What tells this search from others."""
        budget = self.budget
        return {
            "model": sorted(Artifact.of(self.source).hashes().values()),
            "goal": budget.goal,
            "max_drop": budget.max_drop,
            "min_sqnr": budget.sqnr,
            "limit": budget.limit,
            "confidence": budget.confidence,
            "samples": fingerprint(parts.learn),
            "test samples": fingerprint(parts.choose),
            "metric": None if self.bench.metric is None else self.bench.metric.name,
            "code of the metric": code_of(self.bench.metric),
            "providers": list(self.bench.providers),
            "threads": self.bench.threads,
            "seed": self.bench.seed,
            "versions": plain(versions()),
        }

    def _copy(self) -> None:
        """Put the input in the place of the result, as it is."""
        if len(Artifact.of(self.source).files) == 1:
            shutil.copyfile(self.source, self.made)
        else:  # names of data files would clash beside the original
            self.model.save(self.made)


def _doubts(result: CompressionResult) -> list[str]:
    """A confidence that is missing, or drawn from so few samples that it says little."""
    gate = result.gate
    if gate is None or (gate.probability is not None and gate.samples >= FEW):
        return []
    if gate.probability is None:
        return [gate.describe()]
    return [f"{gate.metric} was judged on {gate.samples} samples, too few for its confidence to say much: give more"]


def _why(reasons: Sequence[str], trials: Sequence[Trial], model: Model) -> str:
    """Why nothing was gained, in a line."""
    if reasons:
        return f"no candidate stood the last judgement, so the input is delivered unchanged: {' | '.join(reasons)}"
    if len(trials) > 1 and trials[0].digest and {each.digest for each in trials} == {trials[0].digest}:
        return f"no pass finds anything to do, so the input is delivered unchanged: {why_idle(model)}"
    near = sorted((each for each in trials if each.passes), key=lambda each: -each.gain)[:2]
    told = [f"{each.name}: {each.reason or 'what it gains is within noise'}" for each in near]
    why = " | ".join(told) or "there was time for no candidate"
    return f"nothing gains within the budget, so the input is delivered unchanged; of {len(trials)} candidates: {why}"
