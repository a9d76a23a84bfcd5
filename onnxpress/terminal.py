"""What the command line writes: rich on a terminal, plain text elsewhere, nothing that a pipe would choke on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

import typer

from onnxpress.calibration.progress import Item, Progress, Silent
from onnxpress.rewriter.errors import ConfigError

# rich is imported where a terminal is there to see it: the rest starts faster.

SIGPIPE = 141
"""Exit status of a program whose reader went away, as shells write it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title.

    Attributes:
        title: stands above.
        columns: headings; one that starts with `>` stands, like its cells, at the right.
        rows: as many cells each as there are columns.
        notes: lines that stand below.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())

    @property
    def right(self) -> list[bool]:
        """Whether each column stands at the right."""
        return [column.startswith(">") for column in self.columns]

    @property
    def headings(self) -> list[str]:
        """The headings as they are shown."""
        return [column.removeprefix(">") for column in self.columns]


def clean(text: str) -> str:
    """One line without control characters, which a model's names may hold to play tricks on a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def brief(names: Sequence[str], *, most: int = 56) -> list[str]:
    """Names of a column, long ones with `…` in the middle as long as that tells them apart.

    Some exporters join the names of all that they fused to one of hundreds of letters, which no line holds.
    """
    half = most // 2
    cut = [name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}" for name in names]
    whole = {short: name for name, short in zip(names, cut, strict=True)}
    twice = {short for name, short in zip(names, cut, strict=True) if whole[short] != name}
    return [name if short in twice else short for name, short in zip(names, cut, strict=True)]


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Write lines to standard output, or to `stream`."""
    stream = stream or sys.stdout
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        # What is still buffered goes nowhere, or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(SIGPIPE) from error
        raise ConfigError(f"cannot write the output: {error.strerror}") from error
    except UnicodeEncodeError:
        stream.write(text.encode(stream.encoding, "replace").decode(stream.encoding) + "\n")


def complain(text: str, *, kind: str = "error") -> None:
    """Write one line to standard error."""
    say(f"onnxpress: {kind}: {clean(' '.join(text.split()))}", stream=sys.stderr)


def show(table: Table, *, stream: TextIO | None = None) -> None:
    """Write a table to standard output, or to `stream`."""
    stream = stream or sys.stdout
    if _is_terminal(stream):
        _show_rich(table, stream)
    else:
        say(plain(table), stream=stream)


def plain(table: Table) -> str:
    """The table as aligned text."""
    rows = [table.headings, *[[clean(cell) for cell in row] for row in table.rows]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(table.columns))]
    lines = ["  ".join(_pad(*each) for each in zip(row, widths, table.right, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *lines, *table.notes, ""])


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on standard error where that is a terminal, else silence."""
    if not _is_terminal(sys.stderr):
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        yield _Drawn(bars)


class _Drawn:
    """Progress as rich draws it."""

    def __init__(self, bars: object) -> None:
        from rich.progress import Progress as Bars

        assert isinstance(bars, Bars)
        self._bars = bars

    def track(self, items: Iterable[Item], *, label: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, with a bar as long as they last."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        task = self._bars.add_task(clean(label), total=total)
        try:
            for item in items:
                yield item
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _pad(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _show_rich(table: Table, stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    title = Text(clean(table.title), style="bold")
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, right in zip(table.headings, table.right, strict=True):
        grid.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    console = Console(file=stream, highlight=False)
    console.print(grid)
    for note in table.notes:
        console.print(Text(clean(note), style="dim"))
