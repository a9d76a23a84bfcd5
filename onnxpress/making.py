"""The making of a compressed model: passes, the choice of what is delivered, and its measurements."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxpress.artifact import Artifact
from onnxpress.calibration.calm import FOR_ONE, Calm
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.difference import between
from onnxpress.judging import Judge
from onnxpress.outcome import CompressionResult, ResultError, Version, unmet
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.recipe import Limits, Recipe
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.stages import Stages


@dataclass(slots=True)
class Making:
    """One compression, up to the finished file in the scratch folder.

    Attributes:
        notes: warnings that came up on the way.
        stages: what the model came to after each pass.
        judge: measures what is delivered.
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
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is made yet; the latency after each pass is measured where that is the goal."""
        self.judge = Judge(
            source=self.source,
            feed=self.judging,
            timed=self.judging,
            bench=self.bench,
            seconds=self.seconds,
            calm=Calm(FOR_ONE * self.seconds),
        )
        self.stages = Stages(self.judge.pace if self.recipe.goal == "latency" else None)

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
        benchmarks = self.judge.time(self.made)
        if self.recipe.goal == "latency" and (slower := [each for each in benchmarks if each.quartiles[1] < 1]):
            self._take(self.source)
            self.notes.append(
                f"the {version} model is slower than the input ({slower[0].pace}), so the input is delivered"
            )
            version, benchmarks = "original", self.judge.time(self.made)
        result = replace(
            self.judge.account(
                self.made,
                recipe=self.recipe,
                version=version,
                reports=reports,
                max_drop=limits.max_drop,
                confidence=limits.confidence,
                benchmarks=benchmarks,
            ),
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
            slowest = min(self.judge.time(self.made, reference=self.normalised), key=lambda each: each.quartiles[0])
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


def _split(passes: Sequence[Pass]) -> tuple[list[Pass], list[Pass]]:
    """How to normalise, and all that comes after it."""
    own = [each for each in passes if isinstance(each, Normalise)][:1]
    return list(own or [Normalise()]), [each for each in passes if not (own and each is own[0])]
