"""Arguments and options that several commands take."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer

from onnxpress.rewriter.errors import ConfigError
from onnxpress.terminal import say


def finite(value: float | None) -> float | None:
    """Refuse what no figure can be compared with."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def above_zero(value: float | None) -> float | None:
    """Refuse what is no factor and no duration."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value:g} is not a finite number above 0")
    return value


def startable(threads: int | None) -> int | None:
    """Refuse so many threads that the system may not start them, or only crawls."""
    return _at_most(threads, what="threads")


def employable(jobs: int | None) -> int | None:
    """Refuse so many workers likewise, and none."""
    if jobs is not None and jobs < 1 and jobs != -1:
        raise typer.BadParameter(f"{jobs} is no number of workers; give 1 or more, or -1 for one each core")
    return _at_most(jobs, what="workers")


def _at_most(count: int | None, *, what: str) -> int | None:
    most = max(64, 4 * (os.cpu_count() or 1))
    if count is not None and count > most:
        raise typer.BadParameter(f"{count} {what} are too many for this machine; give {most} at most")
    return count


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
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, callback=startable, help="Threads inside an operator."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", callback=employable, help="Workers for independent work; -1 for one each core."
    ),
]
EngineName = Annotated[
    str | None, typer.Option("--engine", metavar="NAME", help="Where they run: loky, threading, dask or ray.")
]
Address = Annotated[str | None, typer.Option("--address", metavar="HOST:PORT", help="The scheduler of dask or ray.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything random.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write a JSON report; - for standard output, alone there.")
]


def given_beside(context: typer.Context, *, takes: Collection[str]) -> list[str]:
    """Options that were typed although they mean nothing here, as their defaults do not tell.

    Args:
        context: of the command that runs.
        takes: names of the parameters that mean something.
    """
    found = []
    for each in context.command.params:
        source = None if each.name is None else context.get_parameter_source(each.name)
        if each.name not in takes and source is not None and source.name == "COMMANDLINE":
            found.append(each.opts[0])
    return found


def listed(providers: str) -> list[str]:
    """The names in `cuda,cpu`."""
    return [each.strip() for each in providers.split(",") if each.strip()]


@dataclass(frozen=True, slots=True)
class JsonReport:
    """Where a JSON report goes, and where the tables go beside it.

    Attributes:
        target: of the report: a file, `-` for standard output, None for nowhere.
    """

    target: str | None

    def __post_init__(self) -> None:
        """Refuse a place that cannot be written to before the work begins."""
        if self.path is not None:
            check_folder(self.path)

    @property
    def path(self) -> Path | None:
        """The file, where it is one."""
        return None if self.target in (None, "-") else Path(str(self.target))

    @property
    def tables(self) -> TextIO:
        """Where people read: standard error where machines read standard output."""
        return sys.stderr if self.target == "-" else sys.stdout

    def write(self, content: object, kind: str) -> None:
        """Write what a command found."""
        # Imports onnx and ONNX Runtime, for which `onnxpress --help` must not wait.
        from onnxpress import report

        if self.target is None:
            return
        text = report.to_json(report.document(kind, content))
        if self.path is None:
            say(text)
        else:
            report.write_text(text + "\n", self.path)


def check_folder(path: Path) -> None:
    """Refuse a report that could not be written.

    Raises:
        ConfigError: its folder is missing, or it is one.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"report {path}: name a file in a folder that exists")
