"""The search within a budget on real models: what it comes to in a quarter of an hour, against what is promised.

    python -m benchmarks.budgets [--models NAME ...] [--goals NAME ...] [--threads N] [--time S] [--json FILE]

Passes learn from calibration samples; one half of the labelled ones chooses, the other judges. A promise that does not
hold ends the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import onnxpress
from onnxpress.host import machine, versions
from onnxpress.models.zoo import ZOO, path
from onnxpress.outcome import CompressionResult, LimitsNotMet
from onnxpress.report import plain
from onnxpress.search.budget import Goal


@dataclass(frozen=True, slots=True)
class Case:
    """One search.

    Attributes:
        model: a name of `onnxpress.models`.
        goal: what is to be gained.
        wish: times better than the export; for a model whose export is far from normalised, than that.
        max_drop: how far the metric may fall.
        min_sqnr: in dB, where there is no metric.
        normalised: whether the wish is over the normalised model.
    """

    model: str
    goal: Goal
    wish: float
    max_drop: float | None = None
    min_sqnr: float | None = None
    normalised: bool = False


CASES = (
    Case("lenet5", "size", 40, max_drop=0.003),
    Case("ppocr-rec", "size", 4, max_drop=0.01),
    Case("ppocr-rec", "latency", 1.5, max_drop=0.01),
    Case("minilm", "size", 7, max_drop=0.01),
    Case("minilm", "latency", 1.7, max_drop=0.01),
    Case("open-nsfw", "latency", 2.2, min_sqnr=20, normalised=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What a search came to."""

    model: str
    goal: str
    wish: float
    plan: str
    nbytes: int
    ratio: float
    speedup: float
    quartiles: tuple[float, float]
    over_normalised: float | None
    drop: float | None
    probability: float | None
    sqnr: float
    seconds: float
    trials: list[dict[str, object]]

    @property
    def gain(self) -> float:
        """What the wish is compared with."""
        if self.over_normalised is not None:
            return self.over_normalised
        return self.ratio if self.goal == "size" else self.speedup


def searched(case: Case, *, threads: int, seconds: float) -> Row:
    """Run one search."""
    entry = ZOO[case.model]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = onnxpress.compress(
                path(case.model),
                Path(folder) / "out.onnx",
                goal=case.goal,
                max_drop=case.max_drop,
                min_sqnr=case.min_sqnr,
                time_limit=seconds,
                data=entry.calibration,
                test=entry.feed,
                metric=entry.metric,
                threads=threads,
            )
        except LimitsNotMet as error:
            result = error.result
    return _row(case, result)


def _row(case: Case, result: CompressionResult) -> Row:
    first = result.trials[0]
    told = [{name: each for name, each in asdict(trial).items() if name != "passes"} for trial in result.trials]
    return Row(
        model=case.model,
        goal=case.goal,
        wish=case.wish,
        plan=result.recipe.name,
        nbytes=result.bytes_after,
        ratio=result.ratio,
        speedup=result.speedup,
        quartiles=result.benchmarks[0].quartiles,
        over_normalised=result.speedup / first.speedup if case.normalised and first.speedup else None,
        drop=result.verification.drop,
        probability=None if result.gate is None else result.gate.probability,
        sqnr=result.verification.sqnr,
        seconds=result.seconds,
        trials=told,
    )


def main() -> None:
    """Print a table with a row for each search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ZOO), choices=list(ZOO))
    parser.add_argument("--goals", nargs="+", default=["size", "latency"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time", type=float, default=780.0, help="seconds after which nothing else is tried")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = Table(
        "model", "goal", "plan", "bytes", "smaller", "times as fast", "metric fell by", "SQNR dB", "s", "wish"
    )
    rows = []
    for case in CASES:
        if case.model in options.models and case.goal in options.goals:
            row = searched(case, threads=options.threads, seconds=options.time)
            rows.append(row)
            table.add_row(*_cells(row))
            if options.json:
                _write(options.json, rows)
    Console(width=180).print(table)
    sys.exit(any(row.gain < row.wish for row in rows))


def _write(target: Path, rows: list[Row]) -> None:
    """Keep what there is, with the rows of other searches that stand in the file."""
    known = json.loads(target.read_text())["searches"] if target.is_file() else []
    fresh = {(row.model, row.goal) for row in rows}
    kept = [each for each in known if (each["model"], each["goal"]) not in fresh]
    content = {"machine": machine(), "versions": versions(), "searches": [*kept, *map(asdict, rows)]}
    target.write_text(json.dumps(plain(content), indent=1) + "\n")


def _cells(row: Row) -> list[str]:
    fast = f"{row.speedup:.2f} ({row.quartiles[0]:.2f}-{row.quartiles[1]:.2f})"
    if row.over_normalised is not None:
        fast += f", {row.over_normalised:.2f} over normalised"
    return [
        row.model,
        row.goal,
        row.plan,
        f"{row.nbytes:,}",
        f"{row.ratio:.1f}",
        fast,
        "-" if row.drop is None else f"{row.drop:.4f}",
        f"{row.sqnr:.1f}",
        f"{row.seconds:.0f}",
        f"{row.wish:g} {'held' if row.gain >= row.wish else 'MISSED'}",
    ]


if __name__ == "__main__":
    main()
