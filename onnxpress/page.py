"""The report of a compression as one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from onnxpress import tables
from onnxpress.host import machine, versions
from onnxpress.outcome import CompressionResult
from onnxpress.plots import draw, draw_curves, totals
from onnxpress.report import write_text
from onnxpress.sensitivity import families, table
from onnxpress.terminal import Table

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #e3e7ee; --blue: #2f6fde; --red: #c8553d; }
body { margin: 0; background: #f5f7fa; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 12px; }
.soft { color: var(--soft); margin: 0 0 24px; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: 16px; margin-bottom: 24px; }
.card { flex: 1 1 180px; background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.card b { display: block; font-size: 27px; line-height: 1.25; color: var(--blue); } .card span { color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-bottom: 20px;
  overflow-x: auto; }
section svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
th, td { padding: 5px 14px 5px 0; vertical-align: top; } td { border-bottom: 1px solid #f0f2f6; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.note { color: var(--soft); font-size: 13px; margin: 8px 0 0; }
.warn { border-left: 4px solid #e0a32e; } .bad { border-left: 4px solid var(--red); }
ul { margin: 0; padding-left: 20px; }
"""


def write_page(result: CompressionResult, path: Path) -> None:
    """Write the report.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_text(page(result), path)


def page(result: CompressionResult) -> str:
    """The report as HTML; every name out of the model is escaped."""
    source = result.source.name if result.source else "a model in memory"
    parts = [
        f"<h1>{escape(source)}, recipe {escape(result.recipe.name)}</h1>",
        f'<p class="soft">{escape(_origin(result))}</p>',
        _cards(result),
        _list("Limits not met", result.unmet, "bad"),
        _list("Warnings", result.warnings, "warn"),
        _plots(result),
        _sensitivity(result),
        *(_table(each) for each in _tables(result) if each is not None),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(source)}: onnxpress</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _origin(result: CompressionResult) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    host = machine()
    return f"{used}; {host['processor'] or host['machine']}, {host['cores']} cores, {host['system']}"


def _cards(result: CompressionResult) -> str:
    low, high = min((each.quartiles for each in result.benchmarks), default=(0.0, 0.0))
    cards = [
        (f"{result.ratio:.1f}×", f"smaller: {tables.size(result.bytes_before)} → {tables.size(result.bytes_after)}"),
        (f"{result.speedup:.2f}×", f"the speed; middle half of pairs {low:.2f} – {high:.2f}"),
        (tables.decibel(result.verification.sqnr), "SQNR of the worst output"),
    ]
    for each in result.verification.providers[:1]:
        if each.metric_before is not None:
            name, before = tables.metric_name(result.verification.metric), tables.number(each.metric_before)
            cards.append((tables.number(each.metric_after), f"{name}; {before} before"))
    body = "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(text)}</span></div>' for big, text in cards)
    return f'<div class="cards">{body}</div>'


def _list(title: str, lines: Sequence[str], kind: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="{kind}"><h2>{title}</h2><ul>{items}</ul></section>' if lines else ""


def _plots(result: CompressionResult) -> str:
    sites = totals(result.reports)
    return _picture("By layer", lambda: draw(sites)) if sites else ""


def _sensitivity(result: CompressionResult) -> str:
    """Curves of error against ratio: the picture, and the figures below it."""
    found = families(result.reports)
    if not found:
        return ""
    figures = "".join(_table(each) for each in table(result.reports, most=1000))
    return _picture("What each layer or group can spare", lambda: draw_curves(found)) + figures


def _picture(title: str, drawn: Callable[[], str]) -> str:
    try:
        picture = drawn()
    except ImportError:
        picture = '<p class="note">plots need matplotlib: pip install "onnxpress[report]"</p>'
    return f"<section><h2>{title}</h2>{picture}</section>"


def _tables(result: CompressionResult) -> list[Table | None]:
    changes = [
        [
            report.name,
            change.site,
            change.action,
            "" if change.bytes_before is None else tables.size(change.bytes_before),
            "" if change.bytes_after is None else tables.size(change.bytes_after),
            "" if change.error is None else f"{change.error:.2%}",
        ]
        for report in result.reports
        for change in report.changes
    ]
    columns = ("pass", "site", "what", ">before", ">after", ">error")
    return [
        tables.summary(result),
        *tables.verification(result.verification),
        tables.benchmarks(result.benchmarks),
        tables.passes(result.reports),
        Table("changes", columns, changes) if changes else None,
        tables.skips(result.reports, most=1000),
        tables.tensors(result.reports, most=1000),
        tables.harms(result.reports, most=100),
    ]


def _table(table: Table) -> str:
    classes = [' class="right"' if right else "" for right in table.right]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(classes, table.headings, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for kind, cell in zip(classes, row, strict=True))}</tr>"
        for row in table.rows
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return f"<section><h2>{escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>{notes}</section>"
