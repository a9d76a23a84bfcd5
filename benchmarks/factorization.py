"""Low-rank factors of real models: speed against error and task metric, beside what is promised and was published.

    python -m benchmarks.factorization [--models NAME ...] [--cases TEXT ...] [--threads N] [--seconds S]
        [--memory GB] [--timeout S] [--spectra] [--plot FILE.svg] [--json FILE]

Each case runs in a fresh interpreter; results are judged on samples that it never saw. Results of one model are timed
in turns with its normalised float self. Those that no other result beats in both speed and SQNR, or in both speed and
metric, are marked. Promises that do not hold end the run with status 1, after a table of singular values that tells
what ranks would allow. Results are written after each model, beside those of other models in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import spectra
from benchmarks.contest import NORMALISED, Contest, Row, Wish
from benchmarks.factorization_cases import BATCHES, CASES, PROMISES, PUBLISHED
from benchmarks.peers import Bounds
from onnxpress.host import cores, machine, versions

JUDGED = 16
"""Batches whose outputs are compared: all 64 photographs of open_nsfw."""

ALONE = ", weights alone"
"""How names of cases without samples end."""

_FORMS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("kB", lambda v: f"{v / 1e3:,.0f}"),
    "kept": ("parameters", lambda v: f"{v:.1%}"),
    "less_work": ("times less work", lambda v: f"{v:.2f}"),
    "sqnr": ("SQNR dB", lambda v: f"{v:.1f}"),
    "gain": ("dB by samples", lambda v: f"{v:+.1f}"),
    "logits": ("logits dB", lambda v: f"{v:.1f}"),
    "metric": ("metric", lambda v: f"{v:.4f}"),
    "metric_drop": ("points lost", lambda v: f"{100 * v:.2f}"),
    "seconds": ("s", lambda v: f"{v:.1f}"),
}
"""Heading and form of each figure but speed."""


def contest_of(model: str, texts: Sequence[str], options: argparse.Namespace) -> Contest:
    """All cases of a model whose names hold one of `texts`, and the rivals that these are compared with."""
    own = [case for case in CASES if case.model == model]
    chosen = {case.name for case in own if any(text in case.name for text in texts)}
    chosen |= {case.rival for case in own if case.name in chosen and case.rival}
    return Contest(
        model=model,
        cases=[case for case in own if case.name in chosen],
        threads=options.threads,
        seconds=options.seconds,
        bounds=Bounds(seconds=options.timeout, nbytes=int(options.memory * 1e9)),
        batches=BATCHES.get(model, ()),
        judged=JUDGED,
    )


def front(rows: Sequence[Row], figure: str, *, least: bool = False) -> set[str]:
    """Names of the rows that no other is at least as fast as, and better in a figure; of equal ones the first.

    Args:
        rows: of one model.
        figure: the larger, the better.
        least: the smaller, the better.
    """
    sign = -1 if least else 1
    found = [(-row.figures["faster"], -sign * row.figures[figure], row.case) for row in rows if _has(row, figure)]
    best, names = math.inf, set()
    for _, value, case in sorted(found, key=lambda each: each[:2]):
        if value < best:
            best = value
            names.add(case)
    return names


def _has(row: Row, figure: str) -> bool:
    return {"faster", figure} <= row.figures.keys() and not math.isnan(row.figures[figure])


def keeping(rows: Sequence[Row], wishes: Sequence[Wish]) -> list[str]:
    """Names of the rows that are all that is promised of one result, the fastest first."""
    found = [row for row in rows if all(wish.met(row.figures) for wish in wishes)]
    return [row.case for row in sorted(found, key=lambda row: -row.figures.get("faster", 0.0))]


def broken(model: str, rows: Sequence[Row]) -> list[str]:
    """The promises on a model that do not hold."""
    found = [f"{model}, {row.case}: {wish}" for row in rows for wish in row.wishes if not wish.met(row.figures)]
    if not keeping(rows, PROMISES[model]):
        found.append(f"{model}, no result: {' and '.join(map(str, PROMISES[model]))}")
    return found


def table(model: str, rows: Sequence[Row]) -> Table:
    """The rows of one model, and what was published."""
    shown = [name for name in _FORMS if any(name in row.figures for row in rows)]
    speeds = [f"faster_{size}" for size in BATCHES.get(model, ())] or ["faster"]
    result = Table("", *(_FORMS[name][0] for name in shown), title=model)
    for name in (*(f"× normalised{each.removeprefix('faster').replace('_', ' at ')}" for each in speeds), "best in"):
        result.add_column(name)
    result.add_column("promised")
    exact = "logits" if any("logits" in row.figures for row in rows) else "sqnr"
    fronts = {"SQNR": front(rows, exact), "metric": front(rows, "metric_drop", least=True)}
    kept = keeping(rows, PROMISES[model])
    for row in rows:
        best = ", ".join(name for name, found in fronts.items() if row.case in found)
        told = [f"[{'green' if wish.met(row.figures) else 'red'}]{wish}[/]" for wish in row.wishes]
        told += ["[green]as promised[/]"] if row.case in kept[:1] else []
        told += [f"failed: {row.failed}"] if row.failed else row.notes
        cells = [_FORMS[name][1](row.figures[name]) if name in row.figures else "–" for name in shown]
        result.add_row(row.case, *cells, *(_speed(row.figures, each) for each in speeds), best, ", ".join(told))
    for who, faster, lost in PUBLISHED.get(model, ()):
        cells = [f"{100 * lost:.2f}" if name == "metric_drop" else "" for name in shown]
        result.add_row(f"[dim]{who}", *cells, *[f"{faster:.1f}"] * len(speeds))
    return result


def _speed(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return "–"
    return f"{figures[name]:.2f} ({figures[f'{name}_quartile_1']:.2f}–{figures[f'{name}_quartile_3']:.2f})"


def curve_of(case: str) -> str:
    """What cases have in common that differ in a ratio or an aim: `spatial` of `spatial 15%, weights alone`."""
    scheme = re.split(r",? \d", case)[0]
    return scheme + ALONE if case.endswith(ALONE) else scheme


def plot(found: Mapping[str, Sequence[Row]], file: Path) -> None:
    """Speed against what is lost, one panel for each model; published points beside."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(found), 4.2), layout="constrained")
    for axes, (model, rows) in zip(np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True):
        name = next(wish.figure for wish in PROMISES[model] if not wish.figure.startswith("faster"))
        told = [row for row in rows if row.case != NORMALISED and _has(row, name)]
        colours: dict[str, str] = {}
        for curve in dict.fromkeys(curve_of(row.case) for row in told):
            points = sorted((r.figures["faster"], r.figures[name]) for r in told if curve_of(r.case) == curve)
            colour = colours.setdefault(curve.removesuffix(ALONE), f"C{len(colours)}")
            x, y = [each[0] for each in points], [each[1] * (100 if name == "metric_drop" else 1) for each in points]
            style = "o:" if curve.endswith(ALONE) else "o-"
            axes.plot(x, y, style, color=colour, markersize=3, linewidth=1, label=curve)
        for who, faster, lost in PUBLISHED.get(model, ()):
            axes.plot(faster, 100 * lost, "x", color="#c8553d")
            axes.annotate(who, (faster, 100 * lost), textcoords="offset points", xytext=(4, 4), fontsize=7)
        if name == "metric_drop":
            axes.set_ylim(3, -1)  # whatever loses more is of no use
        axes.set_ylabel("points lost" if name == "metric_drop" else "SQNR of the outputs, dB")
        axes.set_xlabel("times as fast as the normalised model")
        axes.set_title(model, loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(file)


def note(file: Path, model: str, told: Mapping[str, object]) -> None:
    """Write what came of one model into a file of results, beside what it holds of others on this machine."""
    here = {"machine": machine(), "versions": versions()}
    before = json.loads(file.read_text()) if file.exists() else {}
    same = all(before.get(name) == each for name, each in here.items())
    models = {**(before["models"] if same else {}), model: told}
    written = file.with_suffix(".part")
    written.write_text(json.dumps({**here, "models": models}, indent=1) + "\n")
    written.replace(file)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(PROMISES), choices=list(PROMISES), metavar="NAME")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="TEXT", help="only those whose names hold one")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing, for each result")
    parser.add_argument("--memory", type=float, default=8.0, help="GB at which a piece of work is ended")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which a piece of work is ended")
    parser.add_argument("--spectra", action="store_true", help="singular values also where promises hold")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    return parser


def main() -> int:
    """Print a table for each model; 1 where a promise does not hold."""
    options = arguments().parse_args()
    console = Console(width=220)
    found: dict[str, list[Row]] = {}
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "plot")}
    failed: list[str] = []
    for model in options.models:
        found[model] = rows = contest_of(model, options.cases, options).run(console)
        console.print(table(model, rows))
        wrong = broken(model, rows)
        told = {"cases": [row.plain() for row in rows], "as_promised": keeping(rows, PROMISES[model])}
        if wrong or options.spectra:
            layers = spectra.spectra(model, options.threads)
            whole = spectra.allowed(model, options.threads)
            console.print(spectra.table(model, layers, whole))
            told["spectra"] = spectra.plain(layers, whole)
        failed += wrong
        if options.json:  # after each model, so that nothing is lost
            note(options.json, model, told | {"options": settings})
    if options.plot:
        plot(found, options.plot)
    for each in failed:
        console.print(f"[red]does not hold: {each}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
