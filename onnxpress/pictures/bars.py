"""Bars: before and after, and the waterfall of what each pass gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from onnxpress.outcome import CompressionResult
from onnxpress.passes.shown import clean
from onnxpress.search.memory import gain_of
from onnxpress.stages import Stage
from onnxpress.tables import duration, short, size


@dataclass(frozen=True, slots=True)
class Bar:
    """One row.

    Attributes:
        name: stands before it.
        begin: of the bar, as a part of the width.
        end: of the bar, not less.
        kind: `was`, `is`, `gain` or `loss`.
        figures: what stands behind it.
        edge: where the next bar begins, to which a thin line leads; None draws none.
    """

    name: str
    begin: float
    end: float
    kind: str
    figures: tuple[str, ...]
    edge: float | None = None


def rows(bars: Sequence[Bar]) -> str:
    """Bars one below the other."""
    return f'<div class="bars">{"".join(map(_row, bars))}</div>'


def _row(bar: Bar) -> str:
    width = max(bar.end - bar.begin, 0.002)  # still to be seen
    begin = min(bar.begin, 1 - width)
    line = "" if bar.edge is None else f'<line class="link" x1="{_of(bar.edge)}" x2="{_of(bar.edge)}" y1="21" y2="30"/>'
    figures = "".join(f'<span class="fig">{clean(each)}</span>' for each in bar.figures)
    return (
        f'<div class="bar"><span class="name" title="{clean(bar.name)}">{clean(bar.name)}</span>'
        f'<svg class="track" height="26" aria-hidden="true"><rect class="{bar.kind}" x="{_of(begin)}" y="5" '
        f'width="{_of(width)}" height="16" rx="2"/>{line}</svg><span class="figs">{figures}</span></div>'
    )


def _of(share: float) -> str:
    return f"{100 * share:.2f}%"


def comparison(result: CompressionResult) -> str:
    """Size, latency and loading time, before and after."""
    gain = f"{result.ratio:.2f} times smaller"
    pairs = [_Pair("size", result.bytes_before, result.bytes_after, size, gain)]
    for each in result.benchmarks:
        first, second, on = each.first, each.second, short(each.provider)
        pairs.append(
            _Pair(f"latency, {on}", first.median, second.median, duration, f"{each.speedup:.2f} times as fast")
        )
        pairs.append(_Pair(f"load, {on}", first.load_seconds, second.load_seconds, duration, ""))
    if result.memory is not None:
        before, after = result.memory
        pairs.append(_Pair("memory", before, after, size, f"{gain_of(before, after):.2f} times less"))
    return f'<div class="pairs">{"".join(map(_drawn, pairs))}</div>'


class _Pair(NamedTuple):
    """One measure of both models."""

    name: str
    before: float
    after: float
    written: Callable[[float], str]
    gain: str


def _drawn(pair: _Pair) -> str:
    most = max(pair.before, pair.after) or 1
    bars = [
        Bar("before", 0, pair.before / most, "was", (pair.written(pair.before),)),
        Bar("after", 0, pair.after / most, "is", (pair.written(pair.after),)),
    ]
    told = f' <span class="soft">{clean(pair.gain)}</span>' if pair.gain else ""
    return f'<div class="pair"><h3>{clean(pair.name)}{told}</h3>{rows(bars)}</div>'


def waterfall(before: int, stages: Sequence[Stage], *, delivered: int, earlier: bool = False) -> str:
    """What each pass gained, in bytes as saved, and how fast the model was by then where that was measured.

    Args:
        before: bytes of the input.
        stages: the model after each pass, in order.
        delivered: bytes of what was delivered.
        earlier: that is not the model after the last pass.
    """
    sizes = [before, *(each.nbytes for each in stages)]
    most = max([*sizes, delivered]) or 1
    timed = any(each.speedup is not None for each in stages)
    blank = ("",) if timed else ()
    bars = [Bar("input", 0, before / most, "was", (size(before), "", *blank), before / most)]
    for stage, (old, new) in zip(stages, pairwise(sizes), strict=True):
        low, high = sorted((old / most, new / most))
        speed = ("" if stage.speedup is None else f"{stage.speedup:.2f}×",) if timed else ()
        figures = (size(new), change(old, new), *speed)
        bars.append(Bar(stage.name, low, high, "gain" if new <= old else "loss", figures, new / most))
    told = "delivered (an earlier model)" if earlier else "delivered"
    bars.append(Bar(told, 0, delivered / most, "is", (size(delivered), f"{before / delivered:.1f}× smaller", *blank)))
    columns = ["bytes after it", "change", *(["speed"] if timed else [])]
    heads = "".join(f'<span class="fig">{each}</span>' for each in columns)
    head = f'<div class="bar heads"><span class="name"></span><span></span><span class="figs">{heads}</span></div>'
    return f'<div class="wide{len(columns)}">{head}{rows(bars)}</div>'


def change(old: int, new: int) -> str:
    """The change in percent of what there was: `−88.4 %`."""
    if old == new:
        return "same"
    share = 100 * (new - old) / old if old else 100.0
    text = f"{share:+.1f} %".replace("-", "−")
    return text if abs(share) >= 0.05 else f"{'−' if new < old else '+'}{size(abs(new - old))}"
