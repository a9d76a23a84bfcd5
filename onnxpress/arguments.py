"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Existing = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.")]
Original = Annotated[Path, typer.Argument(metavar="A", help="The original, an .onnx file.")]
Result = Annotated[Path, typer.Argument(metavar="B", help="What became of it, an .onnx file.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the result goes.")]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="FEED", help="Samples: an .npz, a folder of .npy or .npz, or module:function."),
]
MetricName = Annotated[
    str | None, typer.Option("--metric", metavar="NAME", help="top1 (needs labels in the samples), or module:function.")
]
Providers = Annotated[
    str, typer.Option("--providers", metavar="LIST", help="Execution providers, as cpu or cuda,cpu; each is measured.")
]
Threads = Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Threads inside an operator.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything random.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write a JSON report; - for standard output, alone there.")
]
