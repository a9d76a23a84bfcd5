"""What became of a model, measured beside it: outputs, metric with its confidence, bytes, latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxpress.artifact import Artifact
from onnxpress.benchmark import Benchmark, bench
from onnxpress.calibration.calm import Calm
from onnxpress.calibration.feeds import Feed
from onnxpress.outcome import CompressionResult, Version
from onnxpress.passes.base import Workbench
from onnxpress.passes.report import Report
from onnxpress.recipe import Recipe
from onnxpress.search.bootstrap import Drop, worst_drop
from onnxpress.search.scores import Scored
from onnxpress.stages import Pace
from onnxpress.verification import verify

PARITY_BATCHES = 64
"""Batches whose outputs are compared at most; the metric sees all samples."""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Measures what became of a model on samples to judge by.

    Attributes:
        source: the model as it was.
        feed: the samples.
        timed: samples that latency is measured on.
        bench: brings metric, providers, threads, seed and progress.
        seconds: that timing takes about, on each provider.
        calm: takes timings again where the machine was disturbed.
    """

    source: Path
    feed: Feed
    timed: Feed
    bench: Workbench
    seconds: float
    calm: Calm

    def account(
        self,
        path: Path,
        *,
        recipe: Recipe,
        version: Version,
        reports: Sequence[Report],
        max_drop: float | None,
        confidence: float | None,
        benchmarks: Sequence[Benchmark] | None = None,
    ) -> CompressionResult:
        """All that is measured of a model.

        Args:
            path: of the model.
            recipe: that made it.
            version: which of the models on the way it is.
            reports: of the passes.
            max_drop: how far the metric may fall.
            confidence: with which it is to keep to that; None judges by the drop alone.
            benchmarks: how fast it is, where that is measured already.

        Raises:
            OnnxpressError: it does not run, or the metric fails.
        """
        metric = self.bench.metric
        scored = None if metric is None or max_drop is None or confidence is None else Scored(metric)
        before, after = Artifact.of(self.source), Artifact.of(path)
        verification = verify(
            self.source,
            path,
            data=self.feed,
            metric=scored or metric,
            providers=self.bench.providers,
            threads=self.bench.threads,
            limit=PARITY_BATCHES,
            progress=self.bench.progress,
        )
        return CompressionResult(
            source=self.source,
            path=None,
            recipe=recipe,
            version=version,
            bytes_before=before.nbytes,
            bytes_after=after.nbytes,
            hashes_before=before.hashes(),
            hashes_after=after.hashes(),
            reports=tuple(reports),
            verification=verification,
            benchmarks=tuple(self.time(path) if benchmarks is None else benchmarks),
            gate=self._gate(scored, max_drop, confidence),
        )

    def time(self, path: Path, *, reference: Path | None = None) -> tuple[Benchmark, ...]:
        """How fast a model is on each provider.

        Args:
            path: of the model.
            reference: what it is timed beside; None is the model as it was.
        """
        return bench(
            reference or self.source,
            path,
            data=self.timed,
            providers=self.bench.providers,
            threads=self.bench.threads,
            seconds=self.seconds,
            progress=self.bench.progress,
            calm=self.calm,
        )

    @property
    def pace(self) -> Pace:
        """Times what the model came to after each pass."""
        bench = self.bench
        return Pace(
            source=self.source, feed=self.timed, providers=bench.providers, threads=bench.threads, calm=self.calm
        )

    def _gate(self, scored: Scored | None, max_drop: float | None, confidence: float | None) -> Drop | None:
        """How sure it is that the metric fell by no more than it may."""
        if scored is None or max_drop is None or confidence is None:
            return None
        return worst_drop(scored, limit=max_drop, confidence=confidence, seed=self.bench.seed)
