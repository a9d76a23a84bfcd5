"""Pruning real models: bytes, error, task metric, latency, and what the work itself took, against what is promised.

    python -m benchmarks.pruning [--models NAME ...] [--cases TEXT ...] [--no-peers] [--no-couplings]
        [--threads N] [--seconds S] [--memory GB] [--timeout S] [--json FILE]

Each case runs in a fresh interpreter, on calibration samples; results are judged on others that it never saw. Results
of one model are timed in turns with its normalised float self. Promises that do not hold end the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import pruning_couplings
from benchmarks.contest import Contest, Row
from benchmarks.peers import Bounds
from benchmarks.pruning_cases import CASES, COUPLED
from benchmarks.pruning_couplings import coverage
from onnxpress.host import cores, machine, versions

COLUMNS = ("kB", "smaller", "kept", "SQNR dB", "logits dB", "metric", "× normalised (quartiles)", "CPU s", "peak MB")


def _store(result: Mapping[str, object], target: Path | None) -> None:
    """After each model, so that nothing is lost."""
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n")


def table(model: str, rows: Sequence[Row]) -> Table:
    """The rows of one model."""
    result = Table("", *COLUMNS, "promised", "remarks", title=model)
    for row in rows:
        told = ["failed: " + row.failed] if row.failed else row.notes
        promised = [f"[{'green' if wish.met(row.figures) else 'red'}]{wish}[/]" for wish in row.wishes]
        result.add_row(row.case, *_cells(row.figures), ", ".join(promised), "; ".join(told))
    return result


def _cells(figures: Mapping[str, float]) -> list[str]:
    forms: dict[str, Callable[[float], str]] = {
        "bytes": lambda v: f"{v / 1e3:,.0f}",
        "smaller": lambda v: f"{v:.1%}",
        "kept": lambda v: f"{v:.1%}",
        "sqnr": lambda v: f"{v:.1f}" + (f" ({figures['gain']:+.1f})" if "gain" in figures else ""),
        "logits": lambda v: f"{v:.1f}",
        "metric": lambda v: f"{v:.4f}",
        "faster": lambda v: f"{v:.2f} ({figures['faster_quartile_1']:.2f}–{figures['faster_quartile_3']:.2f})",
        "cpu_seconds": lambda v: f"{v:.1f}",
        "peak": lambda v: f"{v / 1e6:,.0f}",
    }
    return [form(figures[name]) if name in figures else "–" for name, form in forms.items()]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = list(dict.fromkeys([*(case.model for case in CASES), *COUPLED]))
    parser.add_argument("--models", nargs="+", default=models, choices=models, metavar="NAME")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="TEXT", help="only those whose names hold one")
    parser.add_argument("--no-peers", action="store_true", help="leave out other tools")
    parser.add_argument("--no-couplings", action="store_true", help="leave out the groups of coupled axes")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, for each result")
    parser.add_argument("--memory", type=float, default=8.0, help="GB at which a piece of work is ended")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a piece of work is ended")
    parser.add_argument("--json", type=Path)
    return parser


def main() -> int:
    """Print a table for each model; 1 where a promise does not hold."""
    options = arguments().parse_args()
    console = Console(width=220)
    found: dict[str, object] = {}
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    result = {"machine": machine(), "versions": versions(), "options": settings, "models": found}
    bounds = Bounds(seconds=options.timeout, nbytes=int(options.memory * 1e9))
    broken = []
    for model in options.models:
        cases = [
            case
            for case in CASES
            if case.model == model
            and any(text in case.name for text in options.cases)
            and not (options.no_peers and case.script)
        ]
        contest = Contest(model=model, cases=cases, threads=options.threads, seconds=options.seconds, bounds=bounds)
        rows = contest.run(console) if cases else []
        if rows:
            console.print(table(model, rows))
            found[model] = [row.plain() for row in rows]
        broken += [f"{model}, {row.case}: {wish}" for row in rows for wish in row.wishes if not wish.met(row.figures)]
        _store(result, options.json)
    if not options.no_couplings:
        covered = [coverage(each, threads=options.threads) for each in COUPLED if each in options.models]
        console.print(pruning_couplings.table(covered))
        result["couplings"] = [asdict(each) for each in covered]
        broken += [f"{each.model}, couplings: {each.broken}" for each in covered if each.broken]
        _store(result, options.json)
    for each in broken:
        console.print(f"[red]does not hold: {each}", highlight=False)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
