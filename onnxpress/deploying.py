"""The run of a pipeline file: everything checked first, then the model made, judged and told of in every report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from onnxpress.artifact import check_places, files_of
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.plugins import is_reference
from onnxpress.calibration.progress import Progress
from onnxpress.calibration.session import Runner
from onnxpress.compression import compress
from onnxpress.deployment import Deployment
from onnxpress.junit import Case, write_junit
from onnxpress.manifest import write_manifest
from onnxpress.outcome import CompressionResult, LimitsNotMet, Verdict, verdicts
from onnxpress.page import write_broken, write_page
from onnxpress.report import account, document, to_json, write_text
from onnxpress.rewriter.errors import ConfigError, InputError
from onnxpress.rewriter.model import Model
from onnxpress.search.budget import SECONDS
from onnxpress.transport import check_transport, packed_path
from onnxpress.verification import provider_names, samples_for

Status = Literal["done", "gate not met", "broken"]


def check(order: Deployment) -> None:
    """Try all that can be tried before the work begins: model, samples, metric, providers, places.

    The folder of the file is put on `sys.path` and stays there: its functions may import their neighbours late.

    Raises:
        InputError: something cannot be used; one line that names file and field.
    """
    _search(order.source.parent)
    _check_places(order)
    with _named(order, "output.transport"):
        check_transport(order.output.transport)
    with _named(order, "metric"):
        if order.metric is not None:
            load_metric(order.metric)
    with _named(order, "targets.providers"):
        providers = provider_names(order.targets.providers)
    for provider in order.limits.parity or {}:
        if provider not in providers:
            raise ConfigError(f"{order.source.name}: gates.parity: {provider} is none of targets.providers")
    with _named(order, "model"):
        Model.load(order.model)
        runner = Runner(order.model, threads=order.targets.threads)
    with runner:
        with _named(order, "data"):
            samples_for(runner, order.data, limit=order.samples, seed=order.seed)
        with _named(order, "test"):
            if order.test is not None:
                samples_for(runner, order.test)
    with _named(order, "targets.providers"):
        for each in providers:
            Runner(order.model, providers=[each], threads=order.targets.threads).close()


def deploy(order: Deployment, *, progress: Progress | None = None) -> CompressionResult:
    """Run a pipeline: the model is delivered where every gate holds, the reports in any case.

    Args:
        order: the pipeline.
        progress: told about each stage.

    Raises:
        LimitsNotMet: a gate does not hold; only the reports were written.
        InputError: something cannot be used; names the file.
    """
    check(order)
    for field, path in written(order).items():
        with _named(order, f"output.{field}"):
            _make_folder(path)
    began, when = time.perf_counter(), datetime.now(UTC)
    try:
        result = _compress(order, progress)
    except LimitsNotMet as error:
        _tell(order, when, error.result)
        _attest(order, error.result)  # a search that came to nothing delivers the input
        kept = "only the reports were written" if error.result.path is None else None
        raise LimitsNotMet(error.result, kept=kept) from error
    except Exception as error:
        untold = _tell_broken(order, when, error, time.perf_counter() - began)
        if isinstance(error, InputError):
            raise type(error)(f"{order.source.name}: {error}{untold}") from error
        raise
    _tell(order, when, result)
    _attest(order, result)
    return result


def judged(order: Deployment, result: CompressionResult) -> tuple[Verdict, ...]:
    """Each gate of a pipeline, and whether it holds."""
    return tuple(verdicts(result, order.limits))


def _compress(order: Deployment, progress: Progress | None) -> CompressionResult:
    """The one call that makes the model."""
    budget = order.budget
    return compress(
        order.model,
        order.output.model,
        recipe=None if order.recipe is None else replace(order.recipe, limits=order.limits),
        goal=None if budget is None else budget.goal,
        limit=None if budget is None else budget.limit,
        time_limit=SECONDS if budget is None else budget.time_limit,
        limits=order.limits,
        folder=order.folder,
        data=order.data,
        test=order.test,
        metric=order.metric,
        providers=order.targets.providers,
        samples=order.samples,
        threads=order.targets.threads,
        seed=order.seed,
        bench_seconds=order.targets.seconds,
        transport=order.output.transport,
        progress=progress,
    )


def _attest(order: Deployment, result: CompressionResult) -> None:
    """Write the manifest of what was delivered."""
    if order.output.manifest is not None and result.path is not None:
        write_manifest(result, order.output.manifest, seed=order.seed, sources=_sources(order))


def _tell(order: Deployment, when: datetime, result: CompressionResult) -> None:
    """Write the reports of a run that came to its end."""
    found = judged(order, result)
    status: Status = "done" if all(each.holds for each in found) and not result.unmet else "gate not met"
    if order.output.report is not None:
        _write_report(order, status, gates=found, compression=account(result))
    if order.output.html is not None:
        write_page(result, order.output.html)
    if order.output.junit is not None:
        run = Case(name="run", seconds=result.seconds, output=_summary(result))
        cases = [run, *_goal(order, result, found), *(_case(each) for each in found)]
        write_junit(cases, order.output.junit, suite=order.source.stem, when=when)


def _tell_broken(order: Deployment, when: datetime, error: Exception, seconds: float) -> str:
    """Write the reports of a run that broke; what broke it is not hidden where they cannot be written, either.

    Returns:
        What to add to the error: why a report is missing; empty where none is.
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    try:
        if order.output.report is not None:
            _write_report(order, "broken", error=text)
        if order.output.html is not None:
            write_broken(order.source.name, text, order.output.html)
        if order.output.junit is not None:
            broken = Case(name="run", seconds=seconds, problem="error", kind=type(error).__name__, message=text)
            skipped = [
                Case(name=name, problem="skipped", message="the run broke before this could be measured")
                for name in gates(order)
            ]
            write_junit([broken, *skipped], order.output.junit, suite=order.source.stem, when=when)
    except ConfigError as other:
        return f"; nor can its reports be written: {other}"
    return ""


def _write_report(order: Deployment, status: Status, **found: object) -> None:
    assert order.output.report is not None
    content = {"pipeline": order.source.name, "status": status, **found}
    write_text(to_json(document("run", content)) + "\n", order.output.report)


def gates(order: Deployment) -> Iterator[str]:
    """Names of the gates, as verdicts have them; that a search gains something is one."""
    if order.budget is not None:
        yield "goal"
    stated = order.limits.model_dump(exclude_none=True, exclude={"confidence", "parity"})
    yield from stated
    yield from (f"parity.{provider}" for provider in order.limits.parity or {})


def _goal(order: Deployment, result: CompressionResult, found: Sequence[Verdict]) -> Iterator[Case]:
    """Whether a search gained anything."""
    if order.budget is not None:
        sentences = {each.sentence for each in found}
        why = "; ".join(each for each in result.unmet if each not in sentences)
        problem: Literal["failure"] | None = "failure" if why else None
        yield Case(name="goal", problem=problem, kind=order.budget.goal, message=why, output=_summary(result))


def _case(verdict: Verdict) -> Case:
    unit = f" {verdict.unit}" if verdict.unit else ""
    measured = "not measured" if verdict.measured is None else f"{verdict.measured:.6g}{unit}"
    return Case(
        name=verdict.gate,
        problem=None if verdict.holds else "failure",
        kind=verdict.gate,
        message="" if verdict.holds else verdict.sentence,
        output=f"measured {measured}, limit {verdict.limit:.6g}{unit}",
    )


def _summary(result: CompressionResult) -> str:
    return (
        f"{result.bytes_before:,} bytes before, {result.bytes_after:,} after; {result.speedup:.2f} times as fast; "
        f"SQNR {result.verification.sqnr:.1f} dB"
    )


def written(order: Deployment) -> dict[str, Path]:
    """Every file that is written, by field."""
    output = order.output
    packed = packed_path(output.model, output.transport) if output.transport else None
    named = {"model": output.model, **output.reports, "manifest": output.manifest, "transport": packed}
    return {name: path for name, path in named.items() if path is not None}


def _sources(order: Deployment) -> dict[str, object]:
    """All that is read besides the model, by what it is for; of a function beside the file also its module."""
    named = {"data": order.data, "test": order.test, "metric": order.metric}
    modules = {f"module of {field}": _module(order, source) for field, source in named.items()}
    passes = () if order.recipe is None else order.recipe.passes
    ranges = {f"calibration of {each.name}": getattr(each, "calibration", None) for each in passes}
    read = {"pipeline": order.source, "recipe": order.recipe_file, **named, **modules, **ranges}
    return {field: source for field, source in read.items() if source is not None}


def _module(order: Deployment, source: str | None) -> Path | None:
    """The file of `module:function`, where it lies beside the pipeline."""
    if source is None or not is_reference(source) or Path(source).exists():
        return None
    path = order.source.parent.joinpath(*source.partition(":")[0].split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _check_places(order: Deployment) -> None:
    """Refuse what cannot be written, or would be written over what is read.

    Raises:
        ConfigError: names the field.
    """
    for field, path in written(order).items():
        with _named(order, f"output.{field}"):
            _check_place(path)
    with _named(order, "model"):
        files_of(order.model)
    with _named(order, "output"):
        check_places(dict(written(order)), models=[order.model], sources=_sources(order))


def _check_place(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ConfigError: says why.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it")
        there = next(each for each in path.resolve().parents if each.exists())
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise ConfigError(f"{path} cannot be made: {error.strerror}; choose another place") from error
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"{there} cannot be written to, so {path} cannot be made; choose another place")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path.parent}: {error.strerror}") from error


def _search(folder: Path) -> None:
    """Let functions be found beside the file before those where the program runs."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if (place := str(folder.resolve())) not in sys.path[:1]:
        sys.path.insert(0, place)


@contextmanager
def _named(order: Deployment, field: str) -> Iterator[None]:
    """Errors within name the file and the field."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{order.source.name}: {field}: {error}") from error
