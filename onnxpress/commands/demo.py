"""The first thing to try."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onnxpress.arguments import (
    Threads,
)
from onnxpress.rewriter.errors import InputError
from onnxpress.terminal import complain, progress, say, show


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
