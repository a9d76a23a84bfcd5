"""Plots of a report, as SVG text to stand inside a page; needs the extra `report`."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from onnxpress.passes.report import Curve, Report
from onnxpress.sensitivity import Family

# matplotlib is imported where it is used: only reports need it, and it need not be installed.
if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 30
"""Layers drawn; the smaller ones are added up."""
GREY, BLUE, RED = "#c3c9d4", "#2f6fde", "#c8553d"
TONES = (RED, BLUE, "#2a8f68", "#8450c4", "#c77f00", "#0c869c", "#b33c7a", "#66751b", "#7a5230", "#4a5568")
"""Of the curves that are named: the most sensitive ones."""


CEILING = 60.0
"""SQNR in dB that is drawn at most: beyond, nothing is lost, and one dead channel would press all else flat."""


@dataclass(frozen=True, slots=True)
class SiteTotal:
    """What all passes together did to one site.

    Attributes:
        site: its name.
        before: bytes stored before the first pass that counted them.
        after: bytes stored after the last one.
        error: √Σ e² over the relative errors of the passes; None where none was stated.
    """

    site: str
    before: int
    after: int
    error: float | None


class _End(NamedTuple):
    """The last point of a curve, where its name goes."""

    error: float
    ratio: float
    site: str
    tone: str

    def height(self) -> tuple[float, str]:
        return self.error, self.site


def totals(reports: Sequence[Report]) -> list[SiteTotal]:
    """Sum up the changes of all passes by site, largest site first."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    squares: dict[str, float] = {}
    for change in (change for report in reports for change in report.changes):
        if change.bytes_before is not None and change.bytes_after is not None:
            before.setdefault(change.site, change.bytes_before)
            after[change.site] = change.bytes_after
        if change.error is not None:
            squares[change.site] = squares.get(change.site, 0.0) + change.error**2
    found = [
        SiteTotal(site, before[site], after[site], squares[site] ** 0.5 if site in squares else None) for site in before
    ]
    return sorted(found, key=lambda each: -each.before)


def draw(sites: Sequence[SiteTotal]) -> str:
    """Bars of bytes before and after, and of the error, for each site: one SVG element.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    shown = list(sites[:MOST])
    if rest := sites[MOST:]:
        name = f"{len(rest)} smaller layers"
        shown.append(SiteTotal(name, sum(each.before for each in rest), sum(each.after for each in rest), None))
    rows = range(len(shown))
    figure = Figure(figsize=(10, 1.0 + 0.26 * len(shown)), layout="constrained")
    sizes, errors = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    sizes.barh(rows, [each.before / 1e3 for each in shown], height=0.8, color=GREY, label="before")
    sizes.barh(rows, [each.after / 1e3 for each in shown], height=0.44, color=BLUE, label="after")
    sizes.set_yticks(list(rows), [_fitted(each.site) for each in shown], fontsize=8)
    sizes.set_ylim(len(shown) - 0.4, -0.6)  # the first at the top
    sizes.set_title("stored weights, kB", loc="left", fontsize=10)
    sizes.legend(frameon=False, fontsize=8, loc="lower right")
    errors.barh(rows, [100 * (each.error or 0) for each in shown], height=0.44, color=RED)
    errors.set_title("relative error of each change, %", loc="left", fontsize=10)
    for axes in (sizes, errors):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e8ebf0", linewidth=0.8)
        axes.set_axisbelow(True)
    return _svg(figure)


def draw_curves(families: Sequence[Family]) -> str:
    """Signal to noise against ratio, a panel for each family: one SVG element.

    The most sensitive curves are coloured and named, all others are grey.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2 * len(families)), layout="constrained")
    panels = figure.subplots(len(families), 1, squeeze=False)[:, 0]
    for axes, family in zip(panels, families, strict=True):
        _curves(axes, family)
    return _svg(figure)


def _curves(axes: Axes, family: Family) -> None:
    named, rest = family.curves[: len(TONES)], family.curves[len(TONES) :]
    for curve in rest:
        axes.plot(*_points(curve), color=GREY, linewidth=0.9, zorder=1)
    ends: list[_End] = []
    for curve, tone in zip(named, TONES, strict=False):
        ratios, errors = _points(curve)
        axes.plot(ratios, errors, color=tone, linewidth=1.6, marker="o", markersize=2.6, zorder=2)
        if ratios:
            ends.append(_End(errors[-1], ratios[-1], curve.site, tone))
    axes.set_title(_fitted(family.title, most=110), loc="left", fontsize=10)
    axes.set_xlabel(f"part of {'weights that are zero' if family.unit == 'sparsity' else family.unit}", fontsize=9)
    axes.set_ylabel(f"SQNR, dB, drawn up to {CEILING:g}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8ebf0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    _name(axes, ends)
    if rest:
        told = f"grey: {len(rest)} less sensitive ones"
        axes.text(0.99, 0.97, told, transform=axes.transAxes, ha="right", va="top", color="#5b6675", fontsize=8)


def _points(curve: Curve) -> tuple[list[float], list[float]]:
    """What can be drawn: what nothing is taken from has an infinite ratio of signal to noise."""
    pairs = [(ratio, error) for ratio, error in zip(curve.ratios, curve.errors, strict=True) if math.isfinite(error)]
    return [ratio for ratio, _ in pairs], [min(error, CEILING) for _, error in pairs]


def _name(axes: Axes, ends: Sequence[_End]) -> None:
    """Names at the ends of curves, moved apart where they would overlap."""
    if not ends:
        return
    low, high = axes.get_ylim()
    gap, edge = (high - low) / 18, 1.04 * max(each.ratio for each in ends)
    places: list[float] = []
    for each in sorted(ends, key=_End.height):
        places.append(max(each.error, places[-1] + gap if places else low))
    for k in range(1, len(places) + 1):  # from the top, back into the panel
        places[-k] = min(places[-k], places[-k + 1] - gap if k > 1 else high)
    for each, place in zip(sorted(ends, key=_End.height), places, strict=True):
        axes.annotate(
            _fitted(each.site, most=34),
            xy=(each.ratio, each.error),
            xytext=(edge, place),
            color=each.tone,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": each.tone, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 0},
        )


def _svg(figure: object) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    stream = io.StringIO()
    # Text stays text, and ids come from a fixed salt: the same result gives the same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "onnxpress", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _fitted(name: str, most: int = 38) -> str:
    """The end of a long name, which tells layers apart; `$` would start a formula."""
    name = name.replace("$", r"\$")
    return name if len(name) <= most else "…" + name[-most + 1 :]
