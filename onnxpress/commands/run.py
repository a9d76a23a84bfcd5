"""Run a pipeline file: the deployment step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxpress.arguments import Address, EngineName, Jobs
from onnxpress.rewriter.errors import ConfigError
from onnxpress.terminal import Table, complain, progress, say, show

if TYPE_CHECKING:
    from onnxpress.deployment import Deployment
    from onnxpress.outcome import CompressionResult


def run(
    pipeline: Annotated[Path | None, typer.Argument(metavar="FILE", help="A pipeline file, YAML.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="In the place of what the file says; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, and write nothing.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of pipeline files.")] = False,
    jobs: Jobs = None,
    engine: EngineName = None,
    address: Address = None,
) -> None:
    """Run a pipeline file: make the model, judge it by its gates, write model, manifest and reports."""
    from onnxpress import deploying, deployment, engines, report
    from onnxpress.outcome import LimitsNotMet

    if schema:
        say(report.to_json(deployment.schema()))
        return
    if pipeline is None:
        raise ConfigError("name a pipeline file; `onnxpress run --schema` says what stands in one")
    order = deployment.read(pipeline, settings=settings or [])
    if dry_run:
        deploying.check(order)
        show(_plan(order))
        return
    try:
        with engines.engine(jobs, name=engine, address=address), progress() as bars:
            result = deploying.deploy(order, progress=bars)
    except LimitsNotMet as unmet:
        _tell(order, unmet.result)
        raise
    _tell(order, result)
    say(f"wrote {order.output.model}")


def _plan(order: Deployment) -> Table:
    """What a run would do."""
    from onnxpress.deploying import gates, written

    rows = [["model", str(order.model)]]
    named = {"data": order.data, "test": order.test, "metric": order.metric}
    rows += [[field, value] for field, value in named.items() if value is not None]
    if order.recipe is not None:
        rows.append(["passes", ", ".join(each.name for each in order.recipe.passes) or "normalise"])
    if order.budget is not None:
        rows.append(["budget", f"search for the best {order.budget.goal}"])
    rows.append(["gates", ", ".join(gates(order)) or "none"])
    rows += [[f"writes {field}", str(path)] for field, path in written(order).items()]
    return Table(f"{order.source.name} can be run", ("field", "value"), rows)


def _tell(order: Deployment, result: CompressionResult) -> None:
    """Show what was measured, gate by gate."""
    from onnxpress import tables
    from onnxpress.deploying import judged

    show(tables.summary(result))
    rows = [["holds" if each.holds else "DOES NOT HOLD", each.gate, each.sentence] for each in judged(order, result)]
    if rows:
        show(Table("gates", ("", "gate", "measured"), rows))
    for field, path in order.output.reports.items():
        say(f"{field}: {path}")
    for warning in result.warnings:
        complain(warning, kind="warning")
