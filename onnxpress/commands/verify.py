"""Compare two models."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxpress.arguments import (
    Data,
    Json,
    JsonReport,
    MetricName,
    Original,
    Providers,
    Result,
    Seed,
    Threads,
    finite,
    listed,
)
from onnxpress.rewriter.errors import ConfigError, LimitNotMet
from onnxpress.terminal import complain, progress, show


def verify(
    original: Original,
    result: Result,
    data: Data = None,
    metric: MetricName = None,
    providers: Providers = "cpu",
    min_sqnr: Annotated[
        float | None, typer.Option(callback=finite, help="Exit with 3 where an output is below so many dB.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="Exit with 3 where the metric falls by more.")
    ] = None,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Compare two models on the same samples: every output, and the metric."""
    from onnxpress import tables, verification
    from onnxpress.artifact import check_places

    if max_drop is not None and metric is None:
        raise ConfigError("--max-drop needs a metric to fall: add --metric top1 or --metric module:function")
    report = JsonReport(json)
    read = {"--data": data, "--metric": metric}
    check_places({"--json": report.path}, models=[original, result], sources=read)
    with progress() as bars:
        found = verification.verify(
            original,
            result,
            data=data,
            metric=metric,
            providers=listed(providers),
            threads=threads,
            seed=seed,
            progress=bars,
        )
    report.write(found, "verification")
    for table in tables.verification(found):
        show(table, stream=report.tables)
    for warning in found.warnings:
        complain(warning, kind="warning")
    if min_sqnr is not None and not found.sqnr >= min_sqnr:
        raise LimitNotMet(f"SQNR is {found.sqnr:.1f} dB, --min-sqnr is {min_sqnr:g}")
    if max_drop is not None and not (found.drop is not None and found.drop <= max_drop):
        raise LimitNotMet(f"{found.metric} fell by {found.drop:.4g}, --max-drop is {max_drop:g}")
