"""From a model and a recipe to a smaller or faster model, with the proof of what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxpress.artifact import check_output, check_places, deliver, files_of, scratch
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
from onnxpress.transport import check_transport, pack, packed_path
from onnxpress.verification import provider_names, samples_for


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
    transport: str | None = None,
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
        transport: `zst` writes each file of the result once more, compressed, beside it: `out` with `.zst` behind it.
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
    order = _order(recipe, metric, limits)
    out = Path(out)
    places = {"output": out, "transport": packed_path(out, transport) if transport else None}
    check_places(places, models=[model], sources=_read(recipe, data, test, order.recipe.passes))
    check_output(out)
    told = Workbench(
        metric=order.metric,
        providers=provider_names(providers),
        threads=threads,
        seed=seed,
        progress=progress or Silent(),
    )
    with scratch(out) as folder:
        source, loaded = _source(model, folder)
        with Runner(source, threads=threads) as runner:
            feed = samples_for(runner, data, limit=samples, seed=seed)
            judging = feed if test is None else samples_for(runner, test, seed=seed)
        making = Making(
            loaded, source, folder / out.name, order.recipe, replace(told, feed=feed), judging, bench_seconds
        )
        making.try_input()
        result = making.result(order.limits)
        warnings = [*feed.warnings, *result.verification.warnings, *making.notes]
        warnings += cautions(result, calibrated=data is not None, separate=test is not None)
        result = replace(
            result, warnings=tuple(dict.fromkeys(warnings)), source=None if isinstance(model, Model) else source
        )
        if not result.unmet or keep:
            packed = pack(folder / out.name, transport) if transport else None
            deliver(folder / out.name, out, keep=files_of(model))
            result = replace(result, path=out, transport=packed and packed.moved(out.parent))
    result = replace(result, seconds=time.perf_counter() - began)
    if result.unmet:
        raise LimitsNotMet(result)
    return result


@dataclass(frozen=True, slots=True)
class _Order:
    """What is wanted."""

    recipe: Recipe
    metric: Metric | None
    limits: Limits


def _order(recipe: str | Path | Recipe | Sequence[Pass], metric: Metric | str | None, limits: Limits | None) -> _Order:
    """What is wanted, once it is clear that it can be measured.

    Raises:
        ConfigError: a recipe or metric that cannot be used.
    """
    plan = recipe if isinstance(recipe, Recipe) else _recipe(recipe)
    measure = load_metric(metric) if isinstance(metric, str) else metric
    merged = _merged(plan.limits, limits)
    if merged.max_drop is not None and measure is None:
        raise ConfigError(f"max_drop {merged.max_drop} needs a metric to fall: give top1 or module:function")
    return _Order(plan, measure, merged)


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
