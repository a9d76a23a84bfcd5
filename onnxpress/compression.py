"""From a model and a recipe to a smaller or faster model, with the proof of what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxpress.artifact import check_output, check_places, deliver, files_of, scratch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric, load_metric
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import Runner
from onnxpress.making import Making
from onnxpress.outcome import CompressionResult, LimitsNotMet, cautions
from onnxpress.passes.base import Pass, Workbench
from onnxpress.recipe import Limits, Recipe, load, locate
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.runtime import check_runtime
from onnxpress.search.budget import CONFIDENCE, GOALS, SECONDS, Budget, Goal
from onnxpress.transport import check_transport, pack, packed_path
from onnxpress.verification import provider_names, samples_for

_UNTAUGHT = (
    "no samples were given for the passes, and those to judge by (--test) are not shown to them: what takes ranges "
    "from samples takes them from made-up inputs, all else does without; give samples (--data)"
)


def compress(
    model: str | Path | Model,
    out: str | Path,
    *,
    recipe: str | Path | Recipe | Sequence[Pass] | None = None,
    goal: Goal | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    limit: str | float | None = None,
    confidence: float | None = None,
    time_limit: float = SECONDS,
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
    transport: str | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> CompressionResult:
    """Compress a model by a recipe, or by a search within a budget, verify and time the result, and put it at `out`.

    The result appears whole or not at all; the input is never changed. A search that comes to nothing puts the input
    itself there, byte for byte where it is one file, and says why in the error.

    Args:
        model: a file, or a model in memory.
        out: where the result goes; a file there is replaced.
        recipe: a built-in recipe by name, a recipe file, or passes in order; None is `balanced` without a goal.
        goal: what is to become better by a search over all families of passes in place of a recipe: `size`, `latency`
            or `memory`. Half of the samples to judge by choose between candidates, the others judge what was chosen;
            where there are none, `data` is parted, and a quarter of it judges.
        max_drop: how far the metric may fall.
        min_sqnr: signal to noise that every output must keep, in dB; 20 with a goal and neither this nor `max_drop`.
        limit: what a search must come to, as `4x`, `3MB`, `5ms` (see `Budget`).
        confidence: that the drop keeps to its limit, by the paired bootstrap; None is 0.8 in a search, and judges a
            recipe by the drop alone.
        time_limit: seconds after which a search begins with no other candidate.
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
        transport: `zst` writes each file of the result once more, compressed, beside it: `out` with `.zst` behind it.
        folder: of a search that is to go on where it was interrupted; made where it is missing. It keeps what was
            measured and some models. None: beside `out`, removed at the end.
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
    check_transport(transport)
    stated = _merged(limits or Limits(), Limits(max_drop=max_drop, confidence=confidence, min_sqnr=min_sqnr))
    order = _order(recipe, goal, metric, stated, limit=limit, time_limit=time_limit)
    out = Path(out)
    places = {"output": out, "transport": packed_path(out, transport) if transport else None}
    check_places(places, models=[model], sources=_read(recipe, data, test, order.recipe.passes))
    check_output(out)
    _check_folder(folder, out, order.budget)
    told = Workbench(
        metric=order.metric,
        providers=provider_names(providers),
        threads=threads,
        seed=seed,
        progress=progress or Silent(),
    )
    with scratch(out) as beside:
        source, loaded = _source(model, beside)
        with Runner(source, threads=threads) as runner:
            feed = samples_for(runner, data, limit=samples, seed=seed)
            judging = None if test is None else samples_for(runner, test, seed=seed)
        if judging is not None and feed.made_up:
            feed.warnings = () if order.recipe.needs_data else (_UNTAUGHT,)  # what needs them is told of anyway
        task = _Task(loaded, source, beside / out.name, replace(told, feed=feed), judging, bench_seconds)
        result = _followed(task, order) if order.budget is None else _searched(task, order.budget, order.limits, folder)
        told_of = cautions(result, calibrated=data is not None, separate=judging is not None)
        warnings = tuple(dict.fromkeys((*result.warnings, *told_of)))
        result = replace(result, warnings=warnings, source=None if isinstance(model, Model) else source)
        if not result.unmet or keep or (order.budget is not None and result.version == "original"):
            packed = pack(beside / out.name, transport) if transport else None
            deliver(beside / out.name, out, keep=files_of(model))
            result = replace(result, path=out, transport=packed and packed.moved(out.parent))
    result = replace(result, seconds=time.perf_counter() - began)
    if result.unmet:
        raise LimitsNotMet(result)
    return result


@dataclass(frozen=True, slots=True)
class _Task:
    """What is compressed, and by what it is judged.

    Attributes:
        judging: samples to judge by; None where those of the workbench do.
    """

    model: Model
    source: Path
    made: Path
    bench: Workbench
    judging: Feed | None
    seconds: float

    @property
    def feed(self) -> Feed:
        """Samples for the passes."""
        assert self.bench.feed is not None
        return self.bench.feed


def _followed(task: _Task, order: _Order) -> CompressionResult:
    """By a recipe."""
    judging = task.judging or task.feed
    making = Making(task.model, task.source, task.made, order.recipe, task.bench, judging, task.seconds)
    making.try_input()
    result = making.result(order.limits)
    return replace(result, warnings=(*task.feed.warnings, *result.verification.warnings, *making.notes))


def _searched(task: _Task, budget: Budget, limits: Limits, folder: str | Path | None) -> CompressionResult:
    """By a search."""
    from onnxpress.search.ledger import unspoilt
    from onnxpress.search.run import Contest  # brings all families of passes

    place = task.made.parent / "search" if folder is None else Path(folder)
    contest = Contest(task.model, task.source, task.made, budget, task.bench, task.judging, task.seconds, limits)
    with unspoilt(place):
        return contest.result(place)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is wanted."""

    recipe: Recipe
    budget: Budget | None
    metric: Metric | None
    limits: Limits


def _order(
    recipe: str | Path | Recipe | Sequence[Pass] | None,
    goal: Goal | None,
    metric: Metric | str | None,
    limits: Limits,
    *,
    limit: str | float | None,
    time_limit: float,
) -> _Order:
    """What is wanted, once it is clear that it can be measured.

    Raises:
        ConfigError: a recipe or metric that cannot be used.
    """
    if goal is not None and recipe is not None:
        raise ConfigError("a goal searches for what a recipe would say: give one of them, not both")
    if goal is None and limit is not None:
        raise ConfigError(f"limit {limit!r} is of a search: give a goal, {', '.join(GOALS)}")
    budget = None if goal is None else _budget(goal, limits, limit, time_limit)
    if recipe is None:
        recipe = "balanced" if budget is None else []
    plan = recipe if isinstance(recipe, Recipe) else _recipe(recipe)
    measure = load_metric(metric) if isinstance(metric, str) else metric
    if measure is not None and not isinstance(measure, Metric):
        raise ConfigError(f"metric {measure!r}: give top1, module:function, or a Metric with a name")
    merged = _merged(plan.limits, limits)
    if merged.max_drop is not None and measure is None:
        raise ConfigError(f"max_drop {merged.max_drop} needs a metric to fall: give top1 or module:function")
    if merged.confidence is not None and merged.max_drop is None:
        raise ConfigError(f"confidence {merged.confidence:g} is that a metric keeps to a limit: give max_drop, too")
    return _Order(plan, budget, measure, merged)


def _budget(goal: Goal, limits: Limits, limit: str | float | None, time_limit: float) -> Budget:
    """What a search may cost, by what the limits say of it."""
    sure = CONFIDENCE if limits.confidence is None else limits.confidence
    return Budget(
        goal=goal,
        max_drop=limits.max_drop,
        min_sqnr=limits.min_sqnr,
        limit=limit,
        confidence=sure,
        time_limit=time_limit,
    )


def _check_folder(folder: str | Path | None, out: Path, budget: Budget | None) -> None:
    """Refuse a folder that no search would use, or that would hold its own result.

    Raises:
        ConfigError: what to do.
    """
    if folder is None:
        return
    if budget is None:
        raise ConfigError(f"folder {folder} is of a search: give a goal, {', '.join(GOALS)}")
    place, result = Path(folder).resolve(), out.resolve()
    if place in (result, *result.parents) or result in place.parents:
        raise ConfigError(f"folder {folder} is where the output {out} goes; give the search a folder of its own")


def _read(recipe: object, data: object, test: object, passes: Sequence[Pass]) -> dict[str, object]:
    """All that is read besides the model, by what it is for."""
    read = {"data": data, "test": test, "recipe": locate(recipe) if isinstance(recipe, str | Path) else None}
    return read | {f"calibration of {each.name}": getattr(each, "calibration", None) for each in passes}


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
