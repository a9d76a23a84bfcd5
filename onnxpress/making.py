"""The making of a compressed model: passes, the choice of what is delivered, and its measurements."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxpress.artifact import Artifact
from onnxpress.benchmark import Benchmark, bench
from onnxpress.calibration.calm import FOR_ONE, Calm
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric
from onnxpress.calibration.session import Runner
from onnxpress.difference import between
from onnxpress.outcome import CompressionResult, ResultError, Version, unmet
from onnxpress.parity import Verification
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.recipe import Limits, Recipe
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.search.bootstrap import Drop, worst_drop
from onnxpress.search.scores import Scored
from onnxpress.stages import Pace, Stages
from onnxpress.verification import verify

PARITY_BATCHES = 64
"""Batches whose outputs are compared at most; the metric sees all samples."""


@dataclass(slots=True)
class Making:
    """One compression, up to the finished file in the scratch folder.

    Attributes:
        notes: warnings that came up on the way.
        stages: what the model came to after each pass.
        calm: takes timings again where the machine was disturbed.
    """

    model: Model
    source: Path
    made: Path
    recipe: Recipe
    bench: Workbench
    judging: Feed
    seconds: float
    notes: list[str] = field(default_factory=list)
    stages: Stages = field(init=False)
    calm: Calm = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is made yet; the latency after each pass is measured where that is the goal."""
        bench = self.bench
        self.calm = Calm(FOR_ONE * self.seconds)
        pace = Pace(
            source=self.source, feed=self.judging, providers=bench.providers, threads=bench.threads, calm=self.calm
        )
        self.stages = Stages(pace if self.recipe.goal == "latency" else None)

    def try_input(self) -> None:
        """Run the input once on each provider: what fails here is no fault of the passes.

        Raises:
            ModelError: it cannot be run.
            FeedError: it cannot run these samples.
            ProviderError: a provider is missing or was silently replaced.
        """
        first = next(iter(self.judging))
        for each in self.bench.providers:
            with Runner(self.source, providers=[each], threads=self.bench.threads) as runner:
                runner.run(first)

    def result(self, limits: Limits) -> CompressionResult:
        """Make the model, choose what is delivered, and measure that."""
        reports = self._make()
        version = self._choose()
        benchmarks = self._bench(self.source)
        if self.recipe.goal == "latency" and (slower := [each for each in benchmarks if each.quartiles[1] < 1]):
            self._take(self.source)
            self.notes.append(
                f"the {version} model is slower than the input ({slower[0].pace}), so the input is delivered"
            )
            version, benchmarks = "original", self._bench(self.source)
        before, after = Artifact.of(self.source), Artifact.of(self.made)
        metric = None if self.bench.metric is None else Scored(self.bench.metric)
        verification = self._verify(metric if limits.confidence is not None else self.bench.metric)
        result = CompressionResult(
            source=self.source,
            path=None,
            recipe=self.recipe,
            version=version,
            bytes_before=before.nbytes,
            bytes_after=after.nbytes,
            hashes_before=before.hashes(),
            hashes_after=after.hashes(),
            reports=reports,
            verification=verification,
            benchmarks=benchmarks,
            gate=self._gate(metric, limits),
            stages=tuple(self.stages.found),
            difference=between(self.source, self.made, reports if version == "compressed" else ()),
        )
        return replace(result, unmet=tuple(unmet(result, limits)))

    @property
    def normalised(self) -> Path:
        """Where the model waits that has only been normalised."""
        return self.made.parent / "normalised" / self.made.name

    def _make(self) -> tuple[Report, ...]:
        first, rest = _split(self.recipe.passes)
        start = Pipeline(first, after=self.stages.add)(self.model, self.bench)
        if self.recipe.goal:
            self.normalised.parent.mkdir()
            start.model.save(self.normalised)
        end = Pipeline(rest, normalise=False, after=self.stages.add)(start.model, self.bench)
        end.model.save(self.made)
        self._try()
        return start.reports + end.reports

    def _try(self) -> None:
        """Run the result once.

        Raises:
            ResultError: it does not run.
        """
        try:
            with Runner(self.made, threads=self.bench.threads) as runner:
                runner.run(next(iter(self.judging)))
        except (ModelError, FeedError) as error:
            names = ", ".join(each.name for each in self.recipe.passes)
            raise ResultError(f"the passes {names} made a model that does not run: {error}") from error
        if left := undecoded_nodes(self.made):
            self.notes.append(
                f"this ONNX Runtime does not decode {len(left)} weights while it loads the model ({left[0]}, …): it "
                "decodes them in every run; `onnxpress decode` writes a model that it need not"
            )

    def _choose(self) -> Version:
        """Keep what is best in the goal, and say so where that is not the compressed model."""
        if self.recipe.goal == "latency":
            slowest = min(self._bench(self.normalised), key=lambda each: each.quartiles[0])
            if not slowest.quartiles[0] > 1:
                self._take(self.normalised)
                self.notes.append(
                    f"the compressed model is not faster than the normalised one beyond noise ({slowest.pace}), so "
                    "the normalised model is delivered"
                )
                return "normalised"
        if self.recipe.goal == "size":
            sizes = {self.made: "compressed", self.normalised: "normalised", self.source: "original"}
            smallest = min(sizes, key=lambda path: Artifact.of(path).nbytes)
            if smallest != self.made:
                self._take(smallest)
                self.notes.append(
                    f"the compressed model is larger than the {sizes[smallest]} one, so that one is delivered"
                )
                return "normalised" if smallest == self.normalised else "original"
        return "compressed"

    def _take(self, path: Path) -> None:
        """Put a copy of another model in the place of the result."""
        for file in Artifact.of(self.made).files:
            file.unlink()
        if path == self.source:
            self.model.save(self.made)
            return
        for file in Artifact.of(path).files:
            shutil.move(file, self.made.parent / file.name)

    def _gate(self, metric: Scored | None, limits: Limits) -> Drop | None:
        """How sure it is that the metric fell by no more than it may."""
        if metric is None or limits.max_drop is None or limits.confidence is None:
            return None
        return worst_drop(metric, limit=limits.max_drop, confidence=limits.confidence, seed=self.bench.seed)

    def _verify(self, metric: Metric | None) -> Verification:
        return verify(
            self.source,
            self.made,
            data=self.judging,
            metric=metric,
            providers=self.bench.providers,
            threads=self.bench.threads,
            limit=PARITY_BATCHES,
            progress=self.bench.progress,
        )

    def _bench(self, reference: Path) -> tuple[Benchmark, ...]:
        return bench(
            reference,
            self.made,
            data=self.judging,
            providers=self.bench.providers,
            threads=self.bench.threads,
            seconds=self.seconds,
            progress=self.bench.progress,
            calm=self.calm,
        )


def _split(passes: Sequence[Pass]) -> tuple[list[Pass], list[Pass]]:
    """How to normalise, and all that comes after it."""
    own = [each for each in passes if isinstance(each, Normalise)][:1]
    return list(own or [Normalise()]), [each for each in passes if not (own and each is own[0])]
