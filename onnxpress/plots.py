"""Plots of a report, as SVG text to stand inside a page; needs the extra `report`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.passes.report import Report

# matplotlib is imported where it is used: only reports need it, and it need not be installed.

MOST = 30
"""Layers drawn; the smaller ones are added up."""
GREY, BLUE, RED = "#c3c9d4", "#2f6fde", "#c8553d"


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
    errors.set_title("relative error of the weights, %", loc="left", fontsize=10)
    for axes in (sizes, errors):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e8ebf0", linewidth=0.8)
        axes.set_axisbelow(True)
    return _svg(figure)


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
