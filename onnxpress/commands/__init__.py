"""The commands, a file each: it reads its arguments, calls the library, and shows what was found.

What does the work is imported inside each command: `onnxpress --help` must not wait for onnx and ONNX Runtime.
"""

from __future__ import annotations

from typing import Annotated

import typer

from onnxpress.commands.bench import bench
from onnxpress.commands.calibrate import calibrate
from onnxpress.commands.compress import compress
from onnxpress.commands.decode import decode
from onnxpress.commands.demo import run_demo
from onnxpress.commands.inspect import inspect
from onnxpress.commands.recipes import recipes
from onnxpress.commands.run import run
from onnxpress.commands.verify import verify
from onnxpress.terminal import say

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


for _command in (inspect, compress, run, verify, bench, calibrate, decode, recipes):
    app.command()(_command)
app.command("demo")(run_demo)
