"""Candidates measured beside the input: the goal first, and the rest only of those that are better in it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from onnxpress.artifact import Artifact
from onnxpress.benchmark import Benchmark, bench
from onnxpress.calibration.calm import Calm
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.bootstrap import drop_of
from onnxpress.search.budget import Budget
from onnxpress.search.memory import gain_of, memory_of
from onnxpress.search.plans import Plan
from onnxpress.search.scores import Scores, score
from onnxpress.search.trial import Trial
from onnxpress.verification import verify

BATCHES = 8
"""Whose outputs are compared; the metric sees all samples."""

SECONDS = 3.0
"""That timing a candidate takes about, on each provider."""


def falls_short(sqnr: float, least: float) -> str:
    """An SQNR that is not enough, in words.

    Args:
        sqnr: of the worst output, in dB; NaN where it cannot be judged.
        least: that is wanted, in dB.
    """
    if math.isnan(sqnr):
        return "outputs differ that SQNR cannot judge, as whole numbers: judge by a metric (--metric and --max-drop)"
    return f"{sqnr:.1f} dB, {least:g} wanted"


PATIENCE = 0.1
"""Part of the time limit that timings may be taken again in, where the machine was disturbed."""


class _Figures(TypedDict, total=False):
    """What of a trial depends on the goal."""

    gain: float
    speedup: float
    quartiles: tuple[float, float]
    memory: int


class Scales:
    """Weighs candidates against the input, on samples that no pass has seen.

    Attributes:
        source: the input.
        budget: what is wanted.
        feed: the samples.
        bench: brings metric, providers, threads and seed.
        calm: takes timings again where the machine was disturbed.
    """

    def __init__(self, source: Path, budget: Budget, feed: Feed, workbench: Workbench) -> None:
        """Measure the input."""
        self.source, self.budget, self.feed, self.bench = source, budget, feed, workbench
        self.nbytes = Artifact.of(source).nbytes
        self.calm = Calm(PATIENCE * budget.time_limit)

    def try_input(self) -> None:
        """Run the input on each provider, and take its metric: what fails here fails for every candidate.

        Raises:
            OnnxpressError: it does not run, or the metric fails or is not a number.
        """
        for each in self.bench.providers:
            with Runner(self.source, providers=[each], threads=self.bench.threads) as runner:
                runner.run(next(iter(self.feed)))
        metric, scores = self.bench.metric, self.scores
        if metric is None or scores is None or self.budget.max_drop is None or math.isfinite(scores.value):
            return
        raise ConfigError(
            f"metric {metric.name} is {scores.value} for the input, so nothing can be judged by it: look at the "
            "metric, and at the samples"
        )

    @cached_property
    def scores(self) -> Scores | None:
        """The metric of the input; None without one."""
        return self._score(self.source)

    @cached_property
    def memory(self) -> int:
        """Bytes that the input takes at most while it is loaded and run."""
        return self.memory_of(self.source)

    @cached_property
    def milliseconds(self) -> float:
        """Latency of the input on a batch, on the provider where it is slowest."""
        return 1e3 * max(each.first.median for each in self._paces(self.source))

    @property
    def wanted(self) -> float | None:
        """How many times better the result must be."""
        if self.budget.limit is None:
            return None
        goal = self.budget.goal
        before = self.nbytes if goal == "size" else self.memory if goal == "memory" else self.milliseconds
        return self.budget.times(before)

    def weigh(self, plan: Plan, path: Path, *, best: float) -> Trial:
        """Measure a candidate.

        Args:
            plan: that made it.
            path: of the model.
            best: the gain of the best so far; one that gains no more is not measured to the end.

        Raises:
            OnnxpressError: it does not run, or the metric fails.
        """
        began = time.perf_counter()
        nbytes = Artifact.of(path).nbytes
        trial = Trial(name=plan.name, key=plan.key, passes=plan.options, outcome="weak", nbytes=nbytes)
        trial = replace(trial, **self._figures(path, nbytes))
        if trial.gain > best:
            trial = self._judged(trial, path)
        else:
            trial = replace(trial, reason=f"{self.describe(trial.gain)}; the best so far is {self.describe(best)}")
        return replace(trial, seconds=time.perf_counter() - began)

    def describe(self, gain: float) -> str:
        """A gain in words."""
        what = {"size": "smaller", "latency": "as fast", "memory": "less memory"}[self.budget.goal]
        return f"{gain:.2f} times {what}"

    def _judged(self, trial: Trial, path: Path) -> Trial:
        """What a candidate loses."""
        verified = verify(
            self.source,
            path,
            data=self.feed,
            providers=self.bench.providers,
            threads=self.bench.threads,
            limit=BATCHES,
            progress=self.bench.progress,
        )
        trial = replace(trial, sqnr=verified.sqnr)
        least = self.budget.sqnr
        if least is not None and not verified.sqnr >= least:
            return replace(trial, outcome="lossy", reason=falls_short(verified.sqnr, least))
        before, after = self.scores, self._score(path) if self.bench.metric is not None else None
        if before is None or after is None or self.bench.metric is None:
            return replace(trial, outcome="accepted")
        trial = replace(trial, metric=after.value, drop=before.value - after.value)
        if self.budget.max_drop is None:
            return replace(trial, outcome="accepted")
        limit, confidence = self.budget.max_drop, self.budget.confidence
        drop = drop_of(self.bench.metric, before, after, limit=limit, confidence=confidence, seed=self.bench.seed)
        trial = replace(trial, probability=drop.probability)
        if not drop.held:
            return replace(trial, outcome="lossy", reason=drop.describe())
        return replace(trial, outcome="accepted")

    def _figures(self, path: Path, nbytes: int) -> _Figures:
        if self.budget.goal == "size":
            return {"gain": self.nbytes / nbytes}
        if self.budget.goal == "memory":
            memory = self.memory_of(path)
            return {"gain": gain_of(self.memory, memory), "memory": memory}
        slowest = min(self._paces(path), key=lambda each: each.speedup)
        return {"gain": slowest.speedup, "speedup": slowest.speedup, "quartiles": slowest.quartiles}

    def _paces(self, path: Path) -> tuple[Benchmark, ...]:
        return bench(
            self.source,
            path,
            data=self.feed,
            providers=self.bench.providers,
            threads=self.bench.threads,
            seconds=SECONDS,
            calm=self.calm,
        )

    def memory_of(self, path: Path) -> int:
        """Bytes that loading and running a model take, where that is most: on any provider, with a large batch."""
        batch = max(self.feed.spread(BATCHES), key=lambda each: sum(array.nbytes for array in each.values()))
        with Runner(path, threads=self.bench.threads) as runner:
            batch = runner.fitted(batch)
        return max(memory_of(path, batch, provider=each, threads=self.bench.threads) for each in self.bench.providers)

    def _score(self, path: Path) -> Scores | None:
        if self.bench.metric is None:
            return None
        with Runner(path, providers=self.bench.providers[:1], threads=self.bench.threads) as runner:
            return score(self.bench.metric, runner, self.feed)
