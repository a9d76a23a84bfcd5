"""Pruning real models: bytes, error, task metric, latency, and what the work itself took, against what is promised.

    python -m benchmarks.pruning [--models NAME ...] [--cases TEXT ...] [--no-peers] [--no-couplings]
        [--threads N] [--seconds S] [--memory GB] [--timeout S] [--json FILE]

Each case runs in a fresh interpreter, on calibration samples; results are judged on others that it never saw. Results
of one model are timed in turns with its normalised float self. Promises that do not hold end the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import pruning_couplings, samples
from benchmarks.judge import Judge
from benchmarks.peer_scripts.measure import Work
from benchmarks.peers import Bounds, FailedError, Script
from benchmarks.pruning_cases import CASES, COUPLED, NORMALISED, Case, Wish
from benchmarks.pruning_couplings import coverage
from benchmarks.race import race, ratio
from onnxpress.artifact import Artifact
from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.host import cores, machine, versions
from onnxpress.models.zoo import ZOO, path
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

JUDGED = 8
"""Batches whose outputs are compared: 32 images of open_nsfw."""

TIMED = 4
"""Batches that are timed in turn, of those."""

COLUMNS = ("kB", "smaller", "kept", "SQNR dB", "logits dB", "metric", "× normalised (quartiles)", "CPU s", "peak MB")


@dataclass(slots=True)
class Row:
    """What one case came to.

    Attributes:
        case: its name.
        figures: by name: `bytes`, `smaller` (part of the bytes gone), `kept` (part of all weights that is not zero),
            `sqnr` and `logits` of the worst output in dB, `gain` over the rival's, `metric`, `metric_drop`, `faster`
            with its quartiles, `seconds`, `cpu_seconds`, `peak`.
        wishes: that must hold.
        notes: what the tool said.
        failed: why there is no result.
    """

    case: str
    figures: dict[str, float] = field(default_factory=dict)
    wishes: tuple[Wish, ...] = ()
    notes: list[str] = field(default_factory=list)
    failed: str | None = None

    def plain(self) -> dict[str, object]:
        """As JSON holds it."""
        figures = {name: each if math.isfinite(each) else str(each) for name, each in self.figures.items()}
        wishes = {str(wish): wish.met(self.figures) for wish in self.wishes}
        return {"case": self.case, **figures, "wishes": wishes, "notes": self.notes, "failed": self.failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One model, and all that is tried on it."""

    model: str
    cases: Sequence[Case]
    threads: int
    seconds: float
    bounds: Bounds

    def run(self, console: Console) -> list[Row]:
        """Prune in every way, judge every result, time them all."""
        with tempfile.TemporaryDirectory(prefix="pruning-") as name:
            folder = Path(name)
            source = folder / "normalised.onnx"
            work = self._started(_press(folder, ()), path(self.model), source, self._given(None, folder))
            judge = self._judge(source)
            rows, made = [_judged(Row(NORMALISED), source, work, judge)], {NORMALISED: source}
            for case in self.cases:
                with console.status(f"{self.model}: {case.name}"):
                    rows.append(self._make(case, folder, judge, made))
                console.print(f"[dim]{self.model}: {case.name}: {rows[-1].failed or 'done'}", highlight=False)
            batches = judge.batches[:: max(1, len(judge.batches) // TIMED)][:TIMED]
            times = race(made, batches, threads=self.threads, seconds=self.seconds)
        for row in rows:
            if row.case in times:
                middle, low, high = ratio(times[NORMALISED], times[row.case])
                row.figures |= {"faster": middle, "faster_quartile_1": low, "faster_quartile_3": high}
        _compare(rows, self.cases)
        return rows

    def _judge(self, source: Path) -> Judge:
        entry = ZOO[self.model]
        with Runner(source, threads=self.threads) as runner:
            test = open_feed(entry.feed, inputs=runner.input_specs)
        metric = load_metric(entry.metric) if entry.metric else None
        return Judge.of(source, samples.spread(test, JUDGED), test, metric, self.threads)

    def _make(self, case: Case, folder: Path, judge: Judge, made: dict[str, Path]) -> Row:
        """Do one case; a result that runs joins `made`."""
        row = Row(case.name, wishes=case.wishes)
        result = folder / f"{len(list(folder.iterdir())):02}.onnx"
        try:
            given = self._given(case.samples, folder)
            work = self._started(case.script or _press(folder, case.passes), made[NORMALISED], result, given)
            _judged(row, result, work, judge)
            made[case.name] = result
        except FailedError as error:
            row.failed = str(error)
        except Exception as error:  # a file of another tool may be broken in any way
            row.failed = "the file does not run: " + re.sub(r"^.*? failed: ?", "", str(error).partition("\n")[0])[:300]
        return row

    def _given(self, count: int | None, folder: Path) -> Path:
        """A folder of about so many calibration samples, or of all."""
        given = folder / f"samples-{count or 'all'}"
        if not given.exists():
            feed = open_feed(ZOO[self.model].calibration, inputs=Model.load(path(self.model)).inputs)
            samples.write(list(feed) if count is None else samples.calibration(feed, count), given)
        return given

    def _started(self, script: Script, source: Path, target: Path, given: Path) -> Work:
        return script.run(source, target, samples=given, threads=self.threads, bounds=self.bounds)


def _press(folder: Path, passes: Sequence[object]) -> Script:
    """Onnxpress with a recipe of these passes."""
    recipe = folder / f"{len(list(folder.iterdir())):02}.yaml"
    recipe.write_text(yaml.safe_dump({"passes": list(passes)}))
    return Script(file="press.py", options={"recipe": str(recipe)})


def _judged(row: Row, result: Path, work: Work, judge: Judge) -> Row:
    """The figures of a result that runs."""
    verdict = judge(result)
    row.notes += work.notes
    row.figures |= {
        "bytes": Artifact.of(result).nbytes,
        "weights": sum(int(np.count_nonzero(site.array())) for site in find_sites(Model.load(result))),
        "sqnr": min(verdict.sqnr.values()),
        "seconds": work.seconds,
        "cpu_seconds": work.cpu_seconds,
        "peak": work.peak,
    }
    if verdict.logits:
        row.figures["logits"] = min(verdict.logits.values())
    if verdict.metric is not None:
        row.figures["metric"] = verdict.metric
    return row


def _compare(rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """Figures that are those of a row beside another's: the normalised model's, and a rival's."""
    first, by_name = rows[0].figures, {row.case: row.figures for row in rows}
    for row in rows:
        if "bytes" in row.figures:
            row.figures["smaller"] = 1 - row.figures["bytes"] / first["bytes"]
            row.figures["kept"] = row.figures["weights"] / first["weights"]
        if "metric" in row.figures:
            row.figures["metric_drop"] = first["metric"] - row.figures["metric"]
    for case in cases:
        rival = by_name.get(case.rival or "", {})
        if "sqnr" in by_name[case.name] and "sqnr" in rival:
            by_name[case.name]["gain"] = by_name[case.name]["sqnr"] - rival["sqnr"]


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
