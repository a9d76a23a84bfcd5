"""Time two models."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxpress.arguments import (
    Data,
    Json,
    JsonReport,
    Original,
    Providers,
    Result,
    Seed,
    Threads,
    above_zero,
    listed,
)
from onnxpress.rewriter.errors import LimitNotMet
from onnxpress.terminal import progress, show


def bench(
    original: Original,
    result: Result,
    data: Data = None,
    providers: Providers = "cpu",
    seconds: Annotated[float, typer.Option(metavar="S", callback=above_zero, help="On each provider, about.")] = 5.0,
    min_speedup: Annotated[
        float | None, typer.Option(callback=above_zero, help="Exit with 3 where B is not so many times as fast.")
    ] = None,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Time two models in turns."""
    from onnxpress import benchmark, tables
    from onnxpress.artifact import check_places

    report = JsonReport(json)
    check_places({"--json": report.path}, models=[original, result], sources={"--data": data})
    with progress() as bars:
        found = benchmark.bench(
            original,
            result,
            data=data,
            providers=listed(providers),
            threads=threads,
            seconds=seconds,
            seed=seed,
            progress=bars,
        )
    report.write(found, "benchmarks")
    names = (original.name, result.name) if original.name != result.name else (str(original), str(result))
    show(tables.benchmarks(found, names=names), stream=report.tables)
    slowest = min(each.speedup for each in found)
    if min_speedup is not None and not slowest >= min_speedup:
        raise LimitNotMet(f"the speed-up is {slowest:.2f}, --min-speedup is {min_speedup:g}")
