"""Sensitivity: signal to noise against what is taken away, a plot for each family of curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from onnxpress.passes.report import Curve
from onnxpress.passes.shown import clean, short
from onnxpress.pictures.scales import Axis, Scale, across, down, plot
from onnxpress.sensitivity import Family

NAMED = 10
"""Curves in colours and with their names: the most sensitive ones."""
GREYS = 200
"""Curves drawn in grey at most."""
CEILING = 60.0
"""SQNR in dB that is drawn at most: beyond, nothing is lost, and one dead channel would press all else flat."""


def draw(family: Family) -> str:
    """The curves of one family, with a legend below: the most sensitive ones coloured and named, all others grey.

    Returns:
        HTML; empty where no curve has two points.
    """
    drawn = [_points(curve) for curve in family.curves]
    if max(map(len, drawn), default=0) < 2:
        return ""
    what = "weights that are zero" if family.unit == "sparsity" else family.unit
    x = Scale.over([0.0, *(ratio for points in drawn for ratio, _ in points)], zero=True, pad=0.03)
    y = Scale.over([error for points in drawn for _, error in points])
    axes = (
        Axis(x, f"part of {clean(what)}", "{:g}".format),
        Axis(y, f"SQNR, dB, drawn up to {CEILING:g}", "{:g}".format),
    )
    greys = [_line(points, "rest", x, y) for points in drawn[NAMED : NAMED + GREYS]]
    tones = [_line(points, f"tone t{k}", x, y) for k, points in enumerate(drawn[:NAMED])]
    items = [_item(curve, k) for k, curve in enumerate(family.curves[:NAMED])]
    if (more := len(family.curves) - NAMED) > 0:
        items.append(f'<li><i class="key rest"></i>{more} less sensitive ones</li>')
    title = clean(short(family.title, 110))
    picture = plot("".join([*greys, *reversed(tones)]), *axes, told=title)
    return f'<figure><h3>{title}</h3>{picture}<ul class="legend">{"".join(items)}</ul></figure>'


def _item(curve: Curve, k: int) -> str:
    return f'<li title="{clean(curve.site)}"><i class="key t{k}"></i>{clean(short(curve.site, 40))}</li>'


def _line(points: Sequence[tuple[float, float]], kind: str, x: Scale, y: Scale) -> str:
    """A curve as straight pieces: unlike a path, they can be placed in percent."""
    places = [(across(x, ratio), down(y, error)) for ratio, error in points]
    pieces = "".join(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>' for (x1, y1), (x2, y2) in pairwise(places))
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.6"/>' for x, y in places) if kind != "rest" else ""
    return f'<g class="{kind}">{pieces}{dots}</g>'


def _points(curve: Curve) -> list[tuple[float, float]]:
    """What can be drawn: what nothing is taken from has an infinite ratio of signal to noise."""
    pairs = zip(curve.ratios, curve.errors, strict=True)
    return [(ratio, min(error, CEILING)) for ratio, error in pairs if math.isfinite(error)]
