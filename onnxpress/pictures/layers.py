"""What all passes together did to each layer: a table to sort and to search, with bars in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnxpress.passes.report import Report
from onnxpress.passes.shown import clean
from onnxpress.pictures.cells import figure, heading
from onnxpress.tables import size

MOST = 1500
"""Layers listed; of the smaller ones the sum."""


@dataclass(slots=True)
class Layer:
    """What all passes together did to one site.

    Attributes:
        site: its name.
        before: bytes stored before the first pass that counted them; None where none did.
        after: bytes stored after the last one.
        error: √Σ e² over the relative errors of the passes; None where none was stated.
        actions: what was done, by pass, in order.
    """

    site: str
    before: int | None = None
    after: int | None = None
    error: float | None = None
    actions: list[tuple[str, str]] = field(default_factory=list)


def layers(reports: Sequence[Report]) -> list[Layer]:
    """Sum up the changes of all passes by site: largest first, of equal ones what shrank most; without bytes last."""
    found: dict[str, Layer] = {}
    for report in reports:
        for change in report.changes:
            layer = found.setdefault(change.site, Layer(change.site))
            layer.actions.append((report.name, change.action))
            if change.bytes_before is not None and change.bytes_after is not None:
                layer.before = change.bytes_before if layer.before is None else layer.before
                layer.after = change.bytes_after
            if change.error is not None:
                layer.error = math.hypot(layer.error or 0.0, change.error)

    def rank(layer: Layer) -> tuple[int, int]:
        return (1 if layer.before is None else -layer.before), layer.after or 0

    return sorted(found.values(), key=rank)


def table(found: Sequence[Layer]) -> str:
    """The rows of layers, as HTML."""
    shown = list(found[:MOST])
    if rest := found[MOST:]:
        before, after = (sum(each or 0 for each in column) for column in zip(*map(_bytes, rest), strict=True))
        shown.append(Layer(f"{len(rest)} smaller layers", before, after))
    largest = max((max(each.before or 0, each.after or 0) for each in shown), default=0) or 1
    worst = max((each.error for each in shown if each.error is not None and math.isfinite(each.error)), default=0) or 1
    heads = ("layer", ">before", ">after", ">smaller", "", ">error", "", "what was done")
    cells = "".join(heading(each) if each else '<td class="none"></td>' for each in heads)
    body = "".join(_row(each, largest, worst) for each in shown)
    return f'<table class="sortable layers"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'


def _bytes(layer: Layer) -> tuple[int | None, int | None]:
    return layer.before, layer.after


def _row(layer: Layer, largest: int, worst: float) -> str:
    before, after, error = layer.before, layer.after, layer.error
    smaller = before / after if before is not None and after else None
    did = "<br>".join(f'<span class="soft">{clean(name)}</span> {clean(action)}' for name, action in layer.actions)
    return (
        f'<tr><td class="site">{clean(layer.site)}</td>'
        f"{figure(before, '' if before is None else size(before))}{figure(after, '' if after is None else size(after))}"
        f"{figure(smaller, '' if smaller is None else f'{smaller:.1f}×')}"
        f'<td class="mini">{_pair(before or 0, after or 0, largest) if before else ""}</td>'
        f"{figure(error, '' if error is None else f'{error:.2%}')}"
        f'<td class="mini">{_error(error, worst) if error else ""}</td><td class="did">{did}</td></tr>'
    )


def _pair(before: int, after: int, largest: int) -> str:
    return (
        f'<svg class="mini" height="14"><rect class="was" width="{100 * before / largest:.1f}%" height="14"/>'
        f'<rect class="is" y="3" width="{max(100 * after / largest, 1):.1f}%" height="8"/></svg>'
    )


def _error(error: float, worst: float) -> str:
    share = min(error / worst, 1.0) if math.isfinite(error) else 1.0
    return f'<svg class="mini" height="14"><rect class="loss" y="3" width="{100 * share:.1f}%" height="8"/></svg>'
