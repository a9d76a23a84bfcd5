"""The commands: each reads its arguments, calls the library, and shows what it found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxpress.arguments import (
    Data,
    Existing,
    Json,
    JsonReport,
    MetricName,
    Original,
    Out,
    Providers,
    Result,
    Seed,
    Threads,
    above_zero,
    check_folder,
    finite,
    given_beside,
    listed,
)
from onnxpress.rewriter.errors import ConfigError, InputError, LimitNotMet
from onnxpress.terminal import complain, progress, say, show

# What does the work is imported inside each command: `onnxpress --help` must not wait for onnx and ONNX Runtime.
if TYPE_CHECKING:
    from onnxpress.outcome import CompressionResult

DEBUG = "--debug"


app = typer.Typer(
    name="onnxpress",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show where an error came from.")] = False,
) -> None:
    """Make exported ONNX models smaller and faster, with proof of what it cost."""
    if version:
        from importlib.metadata import version as installed

        say(f"onnxpress {installed('onnxpress')}")
    elif context.invoked_subcommand is None:
        say(context.get_help())


@app.command()
def inspect(
    model: Existing,
    couplings: Annotated[
        bool, typer.Option("--couplings", help="Show which channels, neurons and heads go together.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the couplings: an .svg, or a .dot for Graphviz.")
    ] = None,
    json: Json = None,
) -> None:
    """Show what a model is made of, and what each family of passes could do with it."""
    from onnxpress import inspection, structure, survey
    from onnxpress.artifact import check_places
    from onnxpress.report import write_text

    report = JsonReport(json)
    check_places({"--json": report.path, "--draw": draw}, models=[model])
    if draw is not None:
        check_folder(draw)
        structure.check_drawing(draw)
    subject = inspection.Subject.of(model)
    found = inspection.examine(subject)
    report.write(found, "inspection")
    for table in survey.tables_of(found):
        show(table, stream=report.tables)
    if couplings:
        show(survey.couplings(found.couplings), stream=report.tables)
    if draw is not None:
        write_text(structure.draw(subject.model, draw), draw)
        say(f"wrote {draw}", stream=report.tables)


@app.command()
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
    samples: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of --data used at most.")] = None,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML report.")] = None,
) -> None:
    """Compress a model by a recipe, verify and time the result."""
    from onnxpress.artifact import check_places
    from onnxpress.compression import compress as run
    from onnxpress.outcome import LimitsNotMet
    from onnxpress.recipe import Limits, locate

    report = JsonReport(json)
    if html is not None:
        check_folder(html)
    read = {"--data": data, "--test": test, "--recipe": locate(recipe), "--metric": metric}
    check_places({"--output": output, "--json": report.path, "--html": html}, models=[model], sources=read)
    limits = Limits(max_drop=max_drop, min_sqnr=min_sqnr, max_bytes=max_bytes, min_speedup=min_speedup)
    unmet: LimitsNotMet | None = None
    try:
        with progress() as bars:
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
                progress=bars,
            )
    except LimitsNotMet as error:
        result, unmet = error.result, error
    _tell(result, report, html)
    if unmet is not None:
        raise unmet
    say(f"wrote {result.path}", stream=report.tables)


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


@app.command()
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


@app.command()
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


@app.command()
def calibrate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="MODEL", help="An .onnx file; calibration files to --merge.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the .npz file goes.")],
    data: Data = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="What to keep: histogram (for all ranges but average), minmax, average.")
    ] = "histogram",
    samples: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of --data used at most.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Join calibration files of parts of the samples.")] = False,
    providers: Annotated[
        str, typer.Option("--providers", metavar="LIST", help="Execution providers, in order of preference.")
    ] = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
) -> None:
    """Observe the activations of a model once, for any number of quantizations."""
    from onnxpress import observation

    if not merge and len(files) != 1:
        raise ConfigError(f"{len(files)} files to calibrate; give one model, or add --merge to join calibration files")
    if merge and (idle := given_beside(context, takes=("files", "output", "merge"))):
        raise ConfigError(f"--merge joins what was observed before; leave out {' and '.join(idle)}")
    if merge:
        made = observation.merge_files(files, output)
    else:
        with progress() as bars:
            made = observation.calibrate_file(
                files[0],
                output,
                data=data,
                method=method,
                samples=samples,
                providers=listed(providers),
                threads=threads,
                seed=seed,
                progress=bars,
            )
    for warning in made.warnings:
        complain(warning, kind="warning")
    say(f"wrote {output}: {made.tensors} tensors, {made.batches} batches, {made.nbytes:,} bytes")


@app.command()
def decode(model: Existing, output: Out) -> None:
    """Write encoded weights out again, for runtimes that do not fold them."""
    from onnxpress.decoding import decode_file

    decoded, nbytes = decode_file(model, output)
    say(f"wrote {output}, {decoded} weights decoded, {nbytes:,} bytes")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipe files.")] = False,
) -> None:
    """List the built-in recipes, print one, or the schema for editors."""
    from onnxpress import recipe, report, tables

    if schema:
        say(report.to_json(recipe.schema()))
    elif name is not None:
        say(recipe.locate(name).read_text(encoding="utf-8").rstrip())
    else:
        show(tables.recipes([recipe.load(each) for each in recipe.built_in()]))


@app.command("demo")
def run_demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where models and reports go.")
    ] = Path("demo-output"),
    threads: Threads = None,
) -> None:
    """Compress two models and show what it cost: LeNet-5, and PP-OCRv4 where it can be fetched."""
    from onnxpress import demo

    demo.make_folder(output)
    done = []
    for job in demo.JOBS:
        say(f"{job.title} …", stream=sys.stderr)
        try:
            with progress() as bars:
                done.append((job, demo.run_job(job, output, threads=threads, progress=bars)))
        except InputError as error:
            if not done:  # the first needs no network: what stops it would stop the others
                raise
            complain(f"{job.title} is left out: {error}", kind="note")
    show(demo.table(done))
    say(f"models, recipes and reports (.html, .json) are in {output}/")
