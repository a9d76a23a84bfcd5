"""The page with every option of the command line, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from onnxpress.commands import app

INTRODUCTION = """\
# Command line

Made from the commands themselves; `onnxpress COMMAND --help` prints the same. `--debug`, anywhere, shows where an error
came from.

| exit status | |
|---|---|
| 0 | done |
| 1 | a bug of ours: please report what the same command prints with `--debug` |
| 2 | wrong usage, recipe, model, samples or provider: one line says what to do; nothing was written |
| 3 | a stated limit does not hold; nothing was written |
"""


def page() -> str:
    """The page as Markdown."""
    group: Any = typer.main.get_command(app)  # click's Group, which typer brings from click or carries itself
    return "\n".join([INTRODUCTION, *(line for name, each in group.commands.items() for line in _section(name, each))])


def _section(name: str, command: Any) -> Iterator[str]:
    """What a command does, its arguments and options, as `--help` has them."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"## onnxpress {name}\n"
    yield f"{command.help}\n"
    for each in command.params:
        record = each.get_help_record(context)  # None where a parameter is hidden
        if record is not None and each.name != "help":
            names, told = record
            told = re.sub(r"(?<!`)--[\w-]+", r"`\g<0>`", told)  # else the two hyphens become a dash
            yield f"`{re.sub(' <path>| range', '', names)}`\n:   {told}\n"
