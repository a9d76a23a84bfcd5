"""From a model and a recipe to a smaller or faster model, with the proof of what it cost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxpress.artifact import Artifact, check_output, check_places, deliver, files_of, scratch
from onnxpress.benchmark import Benchmark, bench
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric, load_metric
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import Runner
from onnxpress.outcome import CompressionResult, LimitsNotMet, ResultError, Version, cautions, unmet
from onnxpress.parity import Verification
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.recipe import Limits, Recipe, load, locate
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.runtime import check_runtime
from onnxpress.verification import provider_names, samples_for, verify

PARITY_BATCHES = 64
"""Batches whose outputs are compared at most; the metric sees all samples."""


def compress(
    model: str | Path | Model,
    out: str | Path,
    *,
    recipe: str | Path | Recipe | Sequence[Pass] = "balanced",
    data: object = None,
    test: object = None,
    metric: Metric | str | None = None,
    providers: Sequence[str] = ("cpu",),
    limits: Limits | None = None,
    samples: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    bench_seconds: float = 5.0,
    keep: bool = False,
    progress: Progress | None = None,
) -> CompressionResult:
    """Compress a model by a recipe, verify and time the result, and put it at `out`.

    The result appears whole or not at all; the input is never changed.

    Args:
        model: a file, or a model in memory.
        out: where the result goes; a file there is replaced.
        recipe: a built-in recipe by name, a recipe file, or passes in order.
        data: samples for the passes, anything `open_feed` takes; None makes inputs up, with a warning.
        test: samples to judge by; None judges by `data`.
        metric: the task's own measure, `top1` or `module:function`.
        providers: execution providers to verify and time on, by short or full name.
        limits: what the result must keep to; each stated one replaces the recipe's.
        samples: of `data` used at most (see `open_feed`).
        threads: threads inside an operator; None leaves the choice to ONNX Runtime.
        seed: of everything random.
        bench_seconds: that timing takes about, on each provider.
        keep: write the result even where a limit is not met.
        progress: told about each stage.

    Returns:
        What was made and measured.

    Raises:
        LimitsNotMet: a stated limit does not hold.
        ModelError: the input cannot be read or run, or the result not written.
        ConfigError: a recipe, option, metric or output path that cannot be used.
        FeedError: samples that do not fit the model.
        ProviderError: a provider is missing or was silently replaced.
        ResultError: the result does not run.
    """
    began = time.perf_counter()
    check_runtime()
    names = provider_names(providers)
    plan = recipe if isinstance(recipe, Recipe) else _recipe(recipe)
    measure = load_metric(metric) if isinstance(metric, str) else metric
    limits = _merged(plan.limits, limits)
    if limits.max_drop is not None and measure is None:
        raise ConfigError(f"max_drop {limits.max_drop} needs a metric to fall: give top1 or module:function")
    out = Path(out)
    read = {"data": data, "test": test, "recipe": locate(recipe) if isinstance(recipe, str | Path) else None}
    read |= {f"calibration of {each.name}": getattr(each, "calibration", None) for each in plan.passes}
    check_places({"output": out}, models=[model], sources=read)
    check_output(out)
    with scratch(out) as folder:
        source, loaded = _source(model, folder)
        with Runner(source, threads=threads) as runner:
            feed = samples_for(runner, data, limit=samples, seed=seed)
            judging = feed if test is None else samples_for(runner, test, seed=seed)
        bench_ = Workbench(
            feed=feed,
            metric=measure,
            providers=names,
            threads=threads,
            seed=seed,
            progress=progress or Silent(),
        )
        run = _Run(loaded, source, folder / out.name, plan, bench_, judging, bench_seconds)
        run.try_input()
        result = run.result(limits)
        warnings = [*feed.warnings, *result.verification.warnings, *run.notes]
        warnings += cautions(result, calibrated=data is not None, separate=test is not None)
        result = replace(
            result, warnings=tuple(dict.fromkeys(warnings)), source=None if isinstance(model, Model) else source
        )
        if not result.unmet or keep:
            deliver(folder / out.name, out, keep=files_of(model))
            result = replace(result, path=out)
    result = replace(result, seconds=time.perf_counter() - began)
    if result.unmet:
        raise LimitsNotMet(result)
    return result


@dataclass(slots=True)
class _Run:
    """One compression, up to the finished file in the scratch folder.

    Attributes:
        notes: warnings that came up on the way.
    """

    model: Model
    source: Path
    made: Path
    recipe: Recipe
    bench: Workbench
    judging: Feed
    seconds: float
    notes: list[str] = field(default_factory=list)

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
        verification = self._verify()
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
        )
        return replace(result, unmet=tuple(unmet(result, limits)))

    @property
    def normalised(self) -> Path:
        """Where the model waits that has only been normalised."""
        return self.made.parent / "normalised" / self.made.name

    def _make(self) -> tuple[Report, ...]:
        first, rest = _split(self.recipe.passes)
        start = Pipeline(first)(self.model, self.bench)
        if self.recipe.goal:
            self.normalised.parent.mkdir()
            start.model.save(self.normalised)
        end = Pipeline(rest, normalise=False)(start.model, self.bench)
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

    def _verify(self) -> Verification:
        return verify(
            self.source,
            self.made,
            data=self.judging,
            metric=self.bench.metric,
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
        )


def _recipe(source: object) -> Recipe:
    if isinstance(source, str | Path):
        return load(source)
    passes: list[Pass] = []
    for each in source if isinstance(source, Iterable) and not isinstance(source, Mapping) else [source]:
        if not isinstance(each, Pass):
            raise ConfigError(
                f"recipe {each!r}: give the name of a built-in recipe, a recipe file, a Recipe, or a list of passes "
                "such as [ShareKMeans(bits=5), Encode()]"
            )
        passes.append(each)
    return Recipe(name="passes", passes=tuple(passes))


def _split(passes: Sequence[Pass]) -> tuple[list[Pass], list[Pass]]:
    """How to normalise, and all that comes after it."""
    own = [each for each in passes if isinstance(each, Normalise)][:1]
    return list(own or [Normalise()]), [each for each in passes if not (own and each is own[0])]


def _merged(stated: Limits, replacing: Limits | None) -> Limits:
    return stated if replacing is None else stated.model_copy(update=replacing.model_dump(exclude_none=True))


def _source(model: str | Path | Model, folder: Path) -> tuple[Path, Model]:
    """The input as a file and in memory."""
    if not isinstance(model, Model):
        return Path(model), Model.load(model)
    path = folder / "input" / "model.onnx"
    path.parent.mkdir()
    model.save(path)
    return path, model
