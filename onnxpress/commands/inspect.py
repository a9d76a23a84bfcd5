"""Look at a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxpress.arguments import (
    Existing,
    Json,
    JsonReport,
    check_folder,
)
from onnxpress.terminal import say, show


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
