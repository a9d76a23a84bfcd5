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
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="See `onnxpress recipes`; balanced without --goal.")
    ] = None,
    goal: Annotated[
        str | None, typer.Option(metavar="size|latency|memory", help="Search for what is best in this, within limits.")
    ] = None,
    limit: Annotated[
        str | None, typer.Option(metavar="4x|3MB|5ms", help="What a search must come to; it ends there.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(metavar="C", help="That the metric falls by no more than --max-drop; as 0.9.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", callback=above_zero, help="After which a search tries nothing else.")
    ] = 900.0,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keeps what a search tried, to go on from after a stop.")
    ] = None,
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
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write hashes, recipe, versions, measurements, for verify.")
    ] = None,
) -> None:
    """Compress a model by a recipe, or by a search for the best within limits; verify and time the result."""
    from onnxpress import engines
    from onnxpress.artifact import check_places
    from onnxpress.compression import compress as run
    from onnxpress.manifest import write_manifest
    from onnxpress.outcome import LimitsNotMet
    from onnxpress.recipe import Limits, locate
    from onnxpress.search.budget import goal_of
    from onnxpress.transport import check_transport, packed_path

    report = JsonReport(json)
    for each in (html, manifest):
        if each is not None:
            check_folder(each)
    read = {"--data": data, "--test": test, "--recipe": recipe and locate(recipe), "--metric": metric}
    check_transport(transport)
    packed = packed_path(output, transport) if transport else None
    written = {"--output": output, "--transport": packed, "--json": report.path, "--html": html, "--manifest": manifest}
    check_places(written, models=[model], sources=read)
    limits = Limits(
        max_drop=max_drop, confidence=confidence, min_sqnr=min_sqnr, max_bytes=max_bytes, min_speedup=min_speedup
    )
    unmet: LimitsNotMet | None = None
    try:
        with engines.engine(jobs, name=engine, address=address), progress() as bars:
            result = run(
                model,
                output,
                recipe=recipe,
                goal=goal_of(goal),
                limit=limit,
                time_limit=time_limit,
                folder=folder,
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
    if manifest is not None and result.path is not None:
        sources = {name.removeprefix("--"): each for name, each in read.items()}
        write_manifest(result, manifest, seed=seed, sources=sources)
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
    if result.trials:
        show(tables.trials(result), stream=report.tables)
    told = (tables.passes, tables.skips, tables.tensors, tables.harms)
    curves = sensitivity.table(result.reports)
    for table in (*(each(result.reports) for each in told), *curves, tables.summary(result)):
        if table is not None:
            show(table, stream=report.tables)
    for warning in result.warnings:
        complain(warning, kind="warning")
