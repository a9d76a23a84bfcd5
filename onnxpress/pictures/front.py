"""The trials of a search: what was gained against what it cost, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnxpress.passes.shown import clean, short
from onnxpress.pictures.cells import figure, heading
from onnxpress.pictures.curves import CEILING
from onnxpress.pictures.scales import Axis, Scale, across, down, plot
from onnxpress.search.trial import Trial
from onnxpress.tables import decibel, duration, number, size

MOST = 400
"""Trials drawn and listed, the last ones."""


@dataclass(frozen=True, slots=True)
class Start:
    """The input.

    Attributes:
        nbytes: of its files.
        measure: name of the task's own measure.
        metric: what that gives; None without one.
        memory: bytes that loading and running take; None where that was not measured.
    """

    nbytes: int
    measure: str
    metric: float | None
    memory: int | None


@dataclass(frozen=True, slots=True)
class Gain:
    """What a trial is drawn against.

    Attributes:
        title: of the axis.
        of: its value for a trial; None where it was not measured.
        start: the input's.
        written: how values are written.
        less: less is better.
    """

    title: str
    of: Callable[[Trial], float | None]
    start: float
    written: Callable[[float], str]
    less: bool


def draw(trials: Sequence[Trial], start: Start, *, floor: float | None, made: Trial | None) -> str:
    """Plots against size and against speed, as far as these were measured, and the trials in a table.

    Args:
        trials: in the order they were made.
        start: the input.
        floor: the least that the metric may be; None for no limit.
        made: the one that was delivered.
    """
    shown = list(trials[-MOST:])
    if made is not None and made not in shown:
        shown = [made, *shown[1:]]
    left = len(trials) - len(shown)
    said = f"<p>{left:,} earlier candidates are not shown; the JSON report has all of them.</p>" if left else ""
    memory = math.nan if start.memory is None else start.memory
    gains = [
        Gain("bytes", lambda each: each.nbytes or None, start.nbytes, _round, less=True),
        Gain("times as fast as the input", lambda each: each.speedup, 1.0, "{:.3g}×".format, less=False),
        Gain("memory while it loads and runs", lambda each: each.memory, memory, _round, less=True),
    ]
    figures = "".join(_figure(shown, gain, start, floor, made) for gain in gains)
    keys = (("made", "delivered"), ("kept", "keeps to the budget"), ("off", "does not, or gains too little"))
    legend = "".join(f'<li><i class="dot {kind}"></i>{told}</li>' for kind, told in keys)
    legend += '<li><i class="dot start"></i>input</li><li><i class="key step"></i>front: nothing is better in both</li>'
    return f'<div class="figures">{figures}</div><ul class="legend">{legend}</ul>{said}{_table(shown, made)}'


def _figure(trials: Sequence[Trial], gain: Gain, start: Start, floor: float | None, made: Trial | None) -> str:
    """One plot; empty where fewer than two trials can stand in it."""
    metric = start.metric if start.metric is not None and math.isfinite(start.metric) else None
    judged = metric is not None
    found = [
        (each, cost, value)
        for each in trials
        if (cost := gain.of(each)) is not None and (value := _worth(each, judged)) is not None and math.isfinite(cost)
    ]
    if len(found) < 2:
        return ""
    x = Scale.over([*(cost for _, cost, _ in found), gain.start], log=gain.less)
    y = Scale.over(
        [*(value for _, _, value in found), *(each for each in (metric, floor) if judged and each is not None)]
    )
    parts = []
    if floor is not None and judged:
        at = down(y, floor)
        parts.append(f'<line class="limit" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="limit" x="100%" y="{at - 5:.1f}" text-anchor="end">limit</text>')
    parts.append(_steps([(cost, value) for each, cost, value in found if each.accepted], x, y, less=gain.less))
    if metric is not None and math.isfinite(gain.start):
        parts.append(f'<circle class="start" cx="{across(x, gain.start)}" cy="{down(y, metric)}" r="5"/>')
    ranked = sorted(found, key=lambda each: (each[0] is made, each[0].accepted))  # the delivered one on top
    parts += [_dot(each, x.at(cost), down(y, value), each is made) for each, cost, value in ranked]
    what = clean(short(start.measure, 40)) if judged else f"SQNR, dB, drawn up to {CEILING:g}"
    told = f"{what} against {gain.title}"
    axes = Axis(x, f"{gain.title} ({'less' if gain.less else 'more'} is better)", gain.written), Axis(y, what, _three)
    return f"<figure>{plot(''.join(parts), *axes, told=told)}</figure>"


def _round(nbytes: float) -> str:
    """A round number of bytes: `20 kB`."""
    number, unit = size(nbytes).split()
    return f"{float(number):g} {unit}"


def _three(value: float) -> str:
    return f"{value:.4g}"


def _worth(trial: Trial, judged: bool) -> float | None:
    """How good a trial is: by the metric, else by SQNR."""
    if judged:
        return trial.metric if trial.metric is not None and math.isfinite(trial.metric) else None
    return None if trial.sqnr is None or math.isnan(trial.sqnr) else max(min(trial.sqnr, CEILING), -CEILING)


def _dot(trial: Trial, share: float, y: float, made: bool) -> str:
    kind, x = "made" if made else "kept" if trial.accepted else "off", f"{100 * share:.2f}%"
    told = clean(f"{trial.name}: {size(trial.nbytes)}{f', {trial.speedup:.2f}×' if trial.speedup else ''}")
    anchor = "start" if share < 0.15 else "end" if share > 0.85 else "middle"
    label = f'<text class="made" x="{x}" y="{y - 12:.1f}" text-anchor="{anchor}">delivered</text>' if made else ""
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{6.5 if made else 4.5}"><title>{told}</title></circle>{label}'


def best(points: Sequence[tuple[float, float]], *, less: bool) -> list[tuple[float, float]]:
    """The Pareto front: points of which none other is as good in both and better in one, the cheapest first.

    Args:
        points: cost or gain, and worth, of which more is better.
        less: less of the first is better.
    """
    sign = 1 if less else -1
    front: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda each: (sign * each[0], -each[1])):
        if not front or worth > front[-1][1]:
            front.append((cost, worth))
    return front


def _steps(points: Sequence[tuple[float, float]], x: Scale, y: Scale, *, less: bool) -> str:
    front = best(points, less=less)
    pieces = []
    for (cost, worth), (further, better) in pairwise(front):
        x1, x2, y1, y2 = across(x, cost), across(x, further), down(y, worth), down(y, better)
        pieces.append(f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y1}"/><line x1="{x2}" x2="{x2}" y1="{y1}" y2="{y2}"/>')
    return f'<g class="step">{"".join(pieces)}</g>'


def _table(trials: Sequence[Trial], made: Trial | None) -> str:
    heads = ("plan", ">bytes", ">speed", ">memory", ">metric", ">drop", ">SQNR", "outcome", ">took")
    columns = [k for k, head in enumerate(heads) if k in (0, 1, 7, 8) or any(_cells(t, made)[k][1] for t in trials)]
    head = "".join(heading(heads[k]) for k in columns)
    rows = []
    for each in trials:
        cells = _cells(each, made)
        line = (
            figure(*cells[k]) if heads[k].startswith(">") else f'<td class="{heads[k]}">{clean(cells[k][1])}</td>'
            for k in columns
        )
        rows.append(f"<tr>{''.join(line)}</tr>")
    body = "".join(rows)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(trial: Trial, made: Trial | None) -> list[tuple[float | None, str]]:
    """Each cell with the value it is sorted by."""
    outcome = "delivered" if trial is made else "keeps to the budget" if trial.accepted else trial.reason
    return [
        (None, trial.name),
        (trial.nbytes or None, size(trial.nbytes) if trial.nbytes else ""),
        (trial.speedup, "" if trial.speedup is None else f"{trial.speedup:.2f}×"),
        (trial.memory, "" if trial.memory is None else size(trial.memory)),
        (trial.metric, number(trial.metric)),
        (trial.drop, number(trial.drop)),
        (trial.sqnr, "" if trial.sqnr is None else decibel(trial.sqnr)),
        (None, outcome),
        (trial.seconds, duration(trial.seconds)),
    ]
