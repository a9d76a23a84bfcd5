"""Text and tables for notebooks and pages; every name that may come out of a model is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = (
    "<style>.onnxpress table{border-collapse:collapse;font-size:13px}.onnxpress caption{text-align:left;"
    "font-weight:600;padding:4px 0}.onnxpress th,.onnxpress td{text-align:left;padding:3px 12px 3px 0;"
    "border-bottom:1px solid rgba(128,128,128,.3);overflow-wrap:anywhere;background:none}.onnxpress .right"
    "{text-align:right;white-space:nowrap}.onnxpress p{margin:4px 0;opacity:.75;font-size:12px}</style>"
)


def printable(text: str) -> str:
    """One line without control characters, signs that change the direction of text, and halves of signs."""
    return "".join(each if each.isprintable() else " " for each in text)


def clean(text: str) -> str:
    """Text for HTML, SVG and attributes in quotes."""
    return escape(printable(text))


def short(text: str, most: int) -> str:
    """Both ends of a long text: names differ at the end.

    Args:
        text: whatever length.
        most: letters that stay, 3 or more.
    """
    if len(text) <= most:
        return text
    kept = most - 1
    return f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"


def frame(*tables: str) -> str:
    """Tables for a notebook, with their style."""
    return f'<div class="onnxpress">{_STYLE}{"".join(tables)}</div>'


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A small HTML table.

    Args:
        title: stands above.
        columns: headings; one that starts with `>` stands, like its cells, at the right.
        rows: as many cells each as there are columns.
        notes: lines that stand below.
    """
    classes = [' class="right"' if column.startswith(">") else "" for column in columns]

    def line(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(classes, cells, strict=True)
        return f"<tr>{''.join(f'<{tag}{kind}>{clean(cell)}</{tag}>' for kind, cell in pairs)}</tr>"

    head = line("th", [column.removeprefix(">") for column in columns])
    body = "".join(line("td", row) for row in rows)
    below = "".join(f"<p>{clean(note)}</p>" for note in notes)
    return f"<table><caption>{clean(title)}</caption>{head}{body}</table>{below}"
