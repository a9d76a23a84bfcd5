"""Observe the activations of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxpress.arguments import (
    Address,
    Data,
    EngineName,
    Jobs,
    Seed,
    Threads,
    given_beside,
    listed,
)
from onnxpress.rewriter.errors import ConfigError
from onnxpress.terminal import complain, progress, say


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
    jobs: Jobs = None,
    engine: EngineName = None,
    address: Address = None,
) -> None:
    """Observe the activations of a model once, for any number of quantizations."""
    from onnxpress import engines, observation

    if not merge and len(files) != 1:
        raise ConfigError(f"{len(files)} files to calibrate; give one model, or add --merge to join calibration files")
    if merge and (idle := given_beside(context, takes=("files", "output", "merge"))):
        raise ConfigError(f"--merge joins what was observed before; leave out {' and '.join(idle)}")
    if merge:
        made = observation.merge_files(files, output)
    else:
        with engines.engine(jobs, name=engine, address=address), progress() as bars:
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
