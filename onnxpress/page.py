"""The report of a compression as one HTML file that opens without a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from onnxpress import tables
from onnxpress.difference import Difference, between
from onnxpress.host import machine, versions
from onnxpress.outcome import CompressionResult
from onnxpress.passes.shown import clean
from onnxpress.pictures import bars, curves, front, graph, layers
from onnxpress.pictures.cells import heading
from onnxpress.pictures.style import policy, script, style
from onnxpress.recipe import plain
from onnxpress.report import write_text
from onnxpress.rewriter.errors import ModelError
from onnxpress.search.trial import Trial
from onnxpress.sensitivity import families, table
from onnxpress.stages import Stage
from onnxpress.terminal import Table


def write_page(result: CompressionResult, path: Path) -> None:
    """Write the report.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_text(page(result), path)


def page(result: CompressionResult) -> str:
    """The report as HTML; every name out of the model is escaped."""
    source = clean(result.source.name if result.source else "a model in memory")
    parts = [
        f"<h1>{source}, {'found by search' if result.trials else 'recipe'}: {clean(result.recipe.name)}</h1>",
        f'<p class="soft top">{clean(_origin(result))}</p>',
        _cards(result),
        _list("Limits not met", result.unmet, "bad"),
        _list("Warnings", result.warnings, "warn"),
        _section("Before and after", bars.comparison(result)),
        _waterfall(result),
        _trials(result),
        _layers(result),
        _sensitivity(result),
        _section("What changed in the graph", _graph(result)),
        *(_table(each) for each in _tables(result) if each is not None),
    ]
    return _document(source, parts)


def write_broken(name: str, error: str, path: Path) -> None:
    """Write that a run broke, in the place of what an earlier one may have left there.

    Args:
        name: of the pipeline.
        error: that broke it.
        path: of the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    parts = [f"<h1>{clean(name)}: the run broke</h1>", _list("Nothing was delivered", [error], "bad")]
    write_text(_document(clean(name), parts), path)


def _document(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: onnxpress</title><style>{style()}</style></head>"
        f"<body><main>{''.join(parts)}</main><script>{script()}</script></body></html>\n"
    )


def _origin(result: CompressionResult) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    host = machine()
    what = "" if result.version == "compressed" else f"the {result.version} model was delivered; "
    return f"{what}{used}; {host['processor'] or host['machine']}, {host['cores']} cores, {host['system']}"


def _cards(result: CompressionResult) -> str:
    cards = [
        (f"{result.ratio:.1f}×", f"smaller: {tables.size(result.bytes_before)} → {tables.size(result.bytes_after)}")
    ]
    if result.benchmarks:
        low, high = min(result.benchmarks, key=lambda each: each.speedup).quartiles
        cards.append((f"{result.speedup:.2f}×", f"the speed; middle half of pairs {low:.2f} – {high:.2f}"))
    if result.verification.providers:
        sqnr = result.verification.sqnr
        cards.append(
            ("not judged", "outputs that have no SQNR")
            if math.isnan(sqnr)
            else (tables.decibel(sqnr), "SQNR of the worst output")
        )
    for each in result.verification.providers[:1]:
        if each.metric_before is not None:
            name, before = tables.metric_name(result.verification.metric), tables.number(each.metric_before)
            cards.append((tables.number(each.metric_after), f"{name}; {before} before"))
    if (gate := result.gate) is not None and gate.low is not None and gate.high is not None:
        sure = f"{gate.low:.4f} to {gate.high:.4f}, each end at a confidence of {gate.confidence:.0%}"
        cards.append((f"{gate.value:.4f}", f"drop of the metric; {sure}; limit {gate.limit:g}"))
    body = "".join(f'<div class="card"><b>{clean(big)}</b><span>{clean(text)}</span></div>' for big, text in cards)
    return f'<div class="cards">{body}</div>'


def _section(title: str, content: str, kind: str = "") -> str:
    """A part of the page; empty where it has nothing to say."""
    named = f' class="{kind}"' if kind else ""
    return f"<section{named}><h2>{clean(title)}</h2>{content}</section>" if content else ""


def _list(title: str, lines: Sequence[str], kind: str) -> str:
    items = "".join(f"<li>{clean(line)}</li>" for line in lines)
    return _section(title, f"<ul>{items}</ul>" if items else "", kind)


def _waterfall(result: CompressionResult) -> str:
    if not result.stages:
        return ""
    # Sizes do not tell: stored under another name, with its weights beside it, a model takes some bytes more or less.
    earlier = result.version == "original" or (result.version == "normalised" and len(result.stages) > 1)
    drawn = bars.waterfall(result.bytes_before, result.stages, delivered=result.bytes_after, earlier=earlier)
    idle = any(each.name.startswith(("prune-", "share-", "binarize")) for each in _gainless(result))
    note = '<p class="note">Zeros and shared values take less room only once encode stores them.</p>' if idle else ""
    return _section("What each pass gained", f'<div class="falls">{drawn}</div>{note}')


def _gainless(result: CompressionResult) -> list[Stage]:
    """Stages after which the file is no smaller."""
    sizes = [result.bytes_before, *(each.nbytes for each in result.stages)]
    return [stage for old, stage in zip(sizes, result.stages, strict=False) if stage.nbytes >= old]


def _trials(result: CompressionResult) -> str:
    if not result.trials:
        return ""
    before = _start(result)
    most = result.recipe.limits.max_drop if result.gate is None else result.gate.limit
    drawn = front.draw(
        result.trials,
        front.Start(
            result.bytes_before,
            tables.metric_name(result.verification.metric),
            before,
            result.memory and result.memory[0],
        ),
        floor=None if before is None or most is None else before - most,
        made=_delivered(result),
    )
    return _section("What the search tried", drawn)


def _start(result: CompressionResult) -> float | None:
    """The input's metric on the samples that trials were measured on, which are not those of the last judgement."""
    for each in result.trials:
        if each.metric is not None and each.drop is not None and math.isfinite(each.metric + each.drop):
            return each.metric + each.drop
    return next((each.metric_before for each in result.verification.providers), None)


def _delivered(result: CompressionResult) -> Trial | None:
    """The trial whose model was delivered: the accepted one of its passes."""
    passes = tuple({each.name: plain(each.options())} for each in result.recipe.passes)
    fitting = (each for each in result.trials if each.accepted and each.passes == passes)
    return None if result.version == "original" else next(fitting, None)


def _layers(result: CompressionResult) -> str:
    found = layers.layers(result.reports)
    if not found:
        return ""
    note = "Bars: grey before, blue after; red the relative error of the weights, ‖W − W'‖ / ‖W‖, over all passes."
    return _section("By layer", f'<div class="scroll">{layers.table(found)}</div><p class="note">{note}</p>')


def _sensitivity(result: CompressionResult) -> str:
    """Curves of error against ratio: the picture, and the figures below it."""
    found = families(result.reports)
    figures = table(result.reports, most=1000)
    parts = [curves.draw(family) + _details(each) for family, each in zip(found, figures, strict=True)]
    return _section("What each layer or group can spare", "".join(parts))


def _graph(result: CompressionResult) -> str:
    found = result.difference or _difference(result)
    if found is None:
        return ""
    done = {each.site: [f"{name}: {what}" for name, what in each.actions] for each in layers.layers(result.reports)}
    return graph.section(found, actions=done)


def _difference(result: CompressionResult) -> Difference | None:
    """What changed, looked up in the files; None where one is not there any more."""
    if result.source is None or result.path is None:
        return None
    try:
        return between(result.source, result.path, result.reports if result.version == "compressed" else ())
    except ModelError:
        return None


def _tables(result: CompressionResult) -> list[Table | None]:
    return [
        tables.summary(result),
        *tables.verification(result.verification),
        tables.benchmarks(result.benchmarks) if result.benchmarks else None,
        tables.passes(result.reports) if result.reports else None,
        tables.skips(result.reports, most=1000),
        tables.tensors(result.reports, most=1000),
        tables.harms(result.reports, most=100),
    ]


def _details(table: Table) -> str:
    return f"<details><summary>{clean(table.title)}, in figures</summary>{_grid(table)}</details>"


def _table(table: Table) -> str:
    return _section(table.title, _grid(table))


def _grid(table: Table) -> str:
    classes = [' class="right"' if right else "" for right in table.right]
    head = "".join(map(heading, table.columns))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{clean(cell)}</td>' for kind, cell in zip(classes, row, strict=True))}</tr>"
        for row in table.rows
    )
    notes = "".join(f'<p class="note">{clean(note)}</p>' for note in table.notes)
    body = f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{body}</div>{notes}'
