"""Compare two models, or a model with its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxpress.arguments import (
    Data,
    Json,
    JsonReport,
    MetricName,
    Providers,
    Seed,
    Threads,
    finite,
    given_beside,
    listed,
)
from onnxpress.rewriter.errors import ConfigError, LimitNotMet
from onnxpress.terminal import complain, progress, say, show

if TYPE_CHECKING:
    from onnxpress.parity import Verification

BY_MANIFEST = ("manifest", "output_only", "tolerance", "data", "metric", "providers", "threads", "seed", "json")
"""Parameters that mean something with a manifest."""


def verify(
    context: typer.Context,
    original: Annotated[Path | None, typer.Argument(metavar="A", help="The original, an .onnx file.")] = None,
    result: Annotated[Path | None, typer.Argument(metavar="B", help="What became of it, an .onnx file.")] = None,
    data: Data = None,
    metric: MetricName = None,
    providers: Providers = "cpu",
    min_sqnr: Annotated[
        float | None, typer.Option(callback=finite, help="Exit with 3 where an output is below so many dB.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="Exit with 3 where the metric falls by more.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of A and B: check the files it names; with --data parity, too."),
    ] = None,
    output_only: Annotated[
        bool, typer.Option("--output-only", help="With --manifest: the files of the result alone.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(min=0, callback=finite, metavar="DB", help="With --manifest: SQNR may be so much lower.")
    ] = 1.0,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Compare two models on the same samples, every output and the metric; or check a manifest."""
    terms = _Terms(data, metric, listed(providers), threads, seed)
    if manifest is not None:
        if stray := given_beside(context, takes=BY_MANIFEST):
            raise ConfigError(f"--manifest names the models and states what they keep to; leave out {', '.join(stray)}")
        typed = "--providers" in given_beside(context, takes=())
        _check(manifest, output_only, tolerance, json, terms if typed else terms.anywhere())
        return
    if alone := {"--output-only", "--tolerance"} & {*given_beside(context, takes=())}:
        raise ConfigError(f"{min(alone)} belongs to --manifest; give that, too, or leave it out")
    if original is None or result is None:
        raise ConfigError("give the original and the result, or --manifest FILE; see onnxpress verify --help")
    if max_drop is not None and metric is None:
        raise ConfigError("--max-drop needs a metric to fall: add --metric top1 or --metric module:function")
    _hold(_compare(original, result, json, terms), min_sqnr, max_drop)


@dataclass(frozen=True, slots=True)
class _Terms:
    """How two models are compared.

    Attributes:
        providers: none means those that a manifest names.
        limit: batches whose outputs are compared at most.
        manifest: that is read besides.
    """

    data: str | None
    metric: str | None
    providers: Sequence[str]
    threads: int | None
    seed: int
    limit: int | None = None
    manifest: Path | None = None

    def anywhere(self) -> _Terms:
        return _Terms(self.data, self.metric, (), self.threads, self.seed)


def _compare(original: Path, result: Path, json: str | None, terms: _Terms) -> Verification:
    """Run both models, and show what came out."""
    from onnxpress import tables, verification
    from onnxpress.artifact import check_places

    report = JsonReport(json)
    read = {"--data": terms.data, "--metric": terms.metric, "--manifest": terms.manifest}
    check_places({"--json": report.path}, models=[original, result], sources=read)
    with progress() as bars:
        found = verification.verify(
            original,
            result,
            data=terms.data,
            metric=terms.metric,
            providers=terms.providers,
            threads=terms.threads,
            limit=terms.limit,
            seed=terms.seed,
            progress=bars,
        )
    report.write(found, "verification")
    for table in tables.verification(found):
        show(table, stream=report.tables)
    for warning in found.warnings:
        complain(warning, kind="warning")
    return found


def _hold(found: Verification, min_sqnr: float | None, max_drop: float | None) -> None:
    """Hold what was measured against the limits.

    Raises:
        LimitNotMet: one is not kept to.
    """
    from onnxpress.calibration.metrics import ROUNDING

    if min_sqnr is not None and not found.sqnr >= min_sqnr:
        raise LimitNotMet(f"SQNR is {found.sqnr:.1f} dB, --min-sqnr is {min_sqnr:g}")
    if max_drop is not None and found.drop is not None and not found.drop <= max_drop + ROUNDING:
        raise LimitNotMet(f"{found.metric} fell by {found.drop:.4g}, --max-drop is {max_drop:g}")


def _check(path: Path, output_only: bool, tolerance: float, json: str | None, terms: _Terms) -> None:
    """Check the files that a manifest names and, with samples, what it states of them.

    Raises:
        LimitNotMet: a file differs, or a model is worse than stated.
    """
    from onnxpress.checking import read_manifest
    from onnxpress.verification import provider_names

    if terms.data is None:
        for option, given in (("--json", json), ("--metric", terms.metric), ("--threads", terms.threads)):
            if given is not None:
                raise ConfigError(f"{option} is for what is measured again: give samples by --data, or leave it out")
    found = read_manifest(path)
    differing = found.differing(output_only=output_only)
    if differing:
        raise LimitNotMet("; ".join(differing))
    stream, count = JsonReport(json).tables, len(found.files(output_only=output_only))
    say(f"{count} {'file is' if count == 1 else 'files are'} what {path.name} says", stream=stream)
    if terms.data is None:
        return
    metric = terms.metric or found.metric
    providers = provider_names(terms.providers) if terms.providers else found.providers
    found.check_stated(providers)
    again = _Terms(terms.data, metric, providers, terms.threads, terms.seed, limit=found.batches, manifest=path)
    measured = _compare(found.original, found.result, json, again)
    if worse := found.worse(measured, tolerance=tolerance):
        raise LimitNotMet("; ".join(worse))
    unknown = found.content.measurements.metric if metric is None else None
    left = f"; {unknown} was not measured again: name it by --metric module:function" if unknown else ""
    say(f"parity is as stated{left}", stream=stream)
