"""Built-in recipes, and the schema of recipe files."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxpress.terminal import complain, say, show


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipe files.")] = False,
) -> None:
    """List the built-in recipes, print one, or the schema for editors."""
    from onnxpress import options, recipe, report, tables

    if schema:
        say(report.to_json(recipe.schema()))
        for each in options.broken().values():
            complain(f"{each}; the schema leaves it out", kind="warning")
    elif name is not None:
        say(recipe.locate(name).read_text(encoding="utf-8").rstrip())
    else:
        show(tables.recipes([recipe.load(each) for each in recipe.built_in()]))
