"""Make the smaller model, with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxpress.arguments import (
    Address,
    Data,
    EngineName,
    Existing,
    Jobs,
    Json,
    JsonReport,
    MetricName,
    Out,
    Providers,
    Seed,
    Threads,
    above_zero,
    check_folder,
    finite,
    listed,
)
from onnxpress.terminal import complain, progress, say, show

if TYPE_CHECKING:
    from onnxpress.outcome import CompressionResult


def compress(
    model: Existing,
    output: Out,
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="See `onnxpress recipes`.")] = "balanced",
    data: Data = None,
    test: Annotated[
        str | None, typer.Option(metavar="FEED", help="Samples to judge by; without it, those of --data.")
    ] = None,
    metric: MetricName = None,
    providers: Providers = "cpu",
    max_drop: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="The metric may fall by so much.")
    ] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(callback=finite, help="Outputs must keep so many dB above the error.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="The result may take so many bytes.")] = None,
    min_speedup: Annotated[
        float | None, typer.Option(callback=above_zero, help="The result must be so many times as fast.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write the result even where a limit is not met.")] = False,
    transport: Annotated[
        str | None, typer.Option(metavar="zst", help="Also write the result compressed, as OUTPUT.zst.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of --data used at most.")] = None,
    threads: Threads = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    engine: EngineName = None,
    address: Address = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML report.")] = None,
) -> None:
    """Compress a model by a recipe, verify and time the result."""
    from onnxpress import engines
    from onnxpress.artifact import check_places
    from onnxpress.compression import compress as run
    from onnxpress.outcome import LimitsNotMet
    from onnxpress.recipe import Limits, locate
    from onnxpress.transport import check_transport, packed_path

    report = JsonReport(json)
    if html is not None:
        check_folder(html)
    read = {"--data": data, "--test": test, "--recipe": locate(recipe), "--metric": metric}
    check_transport(transport)
    packed = packed_path(output, transport) if transport else None
    check_places(
        {"--output": output, "--transport": packed, "--json": report.path, "--html": html}, models=[model], sources=read
    )
    limits = Limits(max_drop=max_drop, min_sqnr=min_sqnr, max_bytes=max_bytes, min_speedup=min_speedup)
    unmet: LimitsNotMet | None = None
    try:
        with engines.engine(jobs, name=engine, address=address), progress() as bars:
            result = run(
                model,
                output,
                recipe=recipe,
                data=data,
                test=test,
                metric=metric,
                providers=listed(providers),
                limits=limits,
                samples=samples,
                threads=threads,
                seed=seed,
                keep=keep,
                transport=transport,
                progress=bars,
            )
    except LimitsNotMet as error:
        result, unmet = error.result, error
    _tell(result, report, html)
    if unmet is not None:
        raise unmet
    paths = [result.path, *(result.transport.paths if result.transport else ())]
    say(f"wrote {' and '.join(map(str, paths))}", stream=report.tables)


def _tell(result: CompressionResult, report: JsonReport, html: Path | None) -> None:
    """Write the reports of a compression, and show it."""
    from onnxpress import sensitivity, tables
    from onnxpress.report import account

    report.write(account(result), "compression")
    if html is not None:
        from onnxpress.page import write_page

        write_page(result, html)
    told = (tables.passes, tables.skips, tables.tensors, tables.harms)
    curves = sensitivity.table(result.reports)
    for table in (*(each(result.reports) for each in told), *curves, tables.summary(result)):
        if table is not None:
            show(table, stream=report.tables)
    for warning in result.warnings:
        complain(warning, kind="warning")
