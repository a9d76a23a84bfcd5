"""Quantizers side by side on real models: size, error, task metric, latency, and what the work itself took.

    python -m benchmarks.quantizers [--models NAME ...] [--tools NAME ...] [--recipes NAME|PASS|FILE ...]
        [--samples N] [--threads N] [--seconds S] [--memory GB] [--timeout S] [--json FILE]

onnxpress, onnxruntime.quantization, NNCF and onnxsim get the same calibration samples and are judged on the same
others. All variants of a model are timed in turns, in one loop. A tool that fails is a row that says why.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import samples
from benchmarks.judge import Judge, is_quantized
from benchmarks.peer_scripts.measure import Work
from benchmarks.peers import Bounds, FailedError
from benchmarks.race import race, ratio
from benchmarks.variants import FLOAT, NORMALISED, RECIPES, Variant, variants
from onnxpress.artifact import Artifact
from onnxpress.calibration.batches import Batch
from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.host import cores, machine, versions
from onnxpress.models.zoo import ZOO, path
from onnxpress.passes.quantize.host import detect
from onnxpress.rewriter.errors import OnnxpressError

JUDGED = 16
"""Batches whose outputs are compared."""

TIMED = 4
"""Batches that are timed in turn, of those."""

TOOLS = ("onnxpress", "onnxruntime", "nncf", "onnxsim")


@dataclass(slots=True)
class Row:
    """What one variant came to; None where it came to nothing."""

    variant: str
    tool: str
    failed: str | None = None
    nbytes: int | None = None
    sqnr: dict[str, float] = field(default_factory=dict)
    logits: dict[str, float] = field(default_factory=dict)
    metric: float | None = None
    latency: float | None = None
    versus: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    work: Work | None = None
    peak: int | None = None
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """As JSON holds it."""
        return {
            "variant": self.variant,
            "tool": self.tool,
            "failed": self.failed,
            "bytes": self.nbytes,
            "sqnr": _plain(self.sqnr),
            "sqnr_of_logits": _plain(self.logits),
            "metric": self.metric,
            "latency_seconds": self.latency,
            "times_as_fast_as": self.versus,
            "work": None if self.work is None else asdict(self.work),
            "peak": self.peak,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One model, and all that is tried on it.

    Attributes:
        model: its name in the zoo.
        variants: in the order of the table.
        samples: rows for calibration, about.
        threads: inside an operator.
        seconds: of timing, for each variant.
        bounds: of each tool's work.
    """

    model: str
    variants: Sequence[Variant]
    samples: int
    threads: int
    seconds: float
    bounds: Bounds

    def run(self, console: Console) -> dict[str, object]:
        """Quantize by every tool, judge every result, time them all; the table goes to the console."""
        began = time.perf_counter()
        entry, source = ZOO[self.model], path(self.model)
        with tempfile.TemporaryDirectory(prefix="quantizers-") as name:
            folder = Path(name)
            with Runner(source, threads=self.threads) as runner:
                inputs = runner.input_specs
            chosen = samples.calibration(open_feed(entry.calibration, inputs=inputs), self.samples)
            samples.write(chosen, folder / "samples")
            test = open_feed(entry.feed, inputs=inputs)
            batches = samples.spread(test, JUDGED)
            judge = Judge.of(source, batches, test, load_metric(entry.metric) if entry.metric else None, self.threads)
            rows, made = [], {FLOAT: source}
            for variant in self.variants:
                with console.status(f"{self.model}: {variant.name}"):
                    row = self._make(variant, folder, judge, made)
                rows.append(row)
                console.print(f"[dim]{self.model}: {row.variant}: {row.failed or 'done'}", highlight=False)
            self._time(rows, made, batches[:: max(1, len(batches) // TIMED)][:TIMED])
        console.print(table(self.model, entry.metric, rows))
        return {
            "model": self.model,
            "metric": entry.metric,
            "calibration": [
                ", ".join(f"{name} {list(array.shape)}" for name, array in batch.items()) for batch in chosen
            ],
            "judged_batches": len(batches),
            "seconds": time.perf_counter() - began,
            "rows": [row.plain() for row in rows],
        }

    def _make(self, variant: Variant, folder: Path, judge: Judge, made: dict[str, Path]) -> Row:
        """Run one tool and judge its result, which joins `made` where it runs."""
        row = Row(variant.name, variant.tool)
        try:
            if variant.base not in made:
                raise FailedError(f"there is no {variant.base} model to start from")
            source = result = made[variant.base]
            if variant.script is not None:
                result = folder / f"{len(made):02}-{variant.name.replace(' ', '-')}.onnx"
                row.work = variant.script.run(
                    source, result, samples=folder / "samples", threads=self.threads, bounds=self.bounds
                )
                row.peak = row.work.peak
                row.notes += row.work.notes
            row.nbytes = Artifact.of(result).nbytes
            verdict = judge(result)
            row.sqnr, row.logits, row.metric = verdict.sqnr, verdict.logits, verdict.metric
            if variant.quantizes and not is_quantized(result):
                row.notes.append("quantized nothing")
            made[variant.name] = result
        except FailedError as error:
            row.failed, row.peak = str(error), error.peak
        except Exception as error:  # a file of another tool may be broken in any way
            row.failed = "the file does not run: " + re.sub(r"^.*? failed: ?", "", str(error).partition("\n")[0])[:300]
        return row

    def _time(self, rows: Sequence[Row], made: dict[str, Path], batches: Sequence[Batch]) -> None:
        times = race(made, batches, threads=self.threads, seconds=self.seconds)
        for row in rows:
            if row.variant in times:
                mine = sorted(times[row.variant])
                row.latency = float(mine[len(mine) // 2])
                row.versus = {
                    name: ratio(times[name], times[row.variant]) for name in (FLOAT, NORMALISED) if name in times
                }


def table(model: str, metric: str | None, rows: Sequence[Row]) -> Table:
    """The rows of one model."""
    shown = (metric or "no metric").rpartition(":")[2]
    result = Table(
        "",
        "kB",
        "SQNR dB",
        "logits dB",
        shown,
        "× float (quartiles)",
        "× normalised (quartiles)",
        "CPU s",
        "peak MB",
        "remarks",
    )
    result.title = model
    for row in rows:
        result.add_row(
            row.variant,
            "–" if row.nbytes is None else f"{row.nbytes / 1e3:,.0f}",
            *(_worst(each) for each in (row.sqnr, row.logits)),
            "–" if row.metric is None else f"{row.metric:.4f}",
            *(_speed(row, name) for name in (FLOAT, NORMALISED)),
            "–" if row.work is None else f"{row.work.cpu_seconds:.1f}",
            "–" if row.peak is None else f"{row.peak / 1e6:,.0f}",
            "; ".join(["failed: " + row.failed] if row.failed else row.notes),
        )
    return result


def _worst(decibels: dict[str, float]) -> str:
    """Of the worst output."""
    values = decibels.values()
    return f"{math.nan if any(map(math.isnan, values)) else min(values):.1f}" if values else "–"


def _plain(decibels: dict[str, float]) -> dict[str, float | str]:
    """Numbers that JSON lacks become text."""
    return {name: each if math.isfinite(each) else str(each) for name, each in decibels.items()}


def _speed(row: Row, reference: str) -> str:
    if reference not in row.versus:
        return "–"
    middle, low, high = row.versus[reference]
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def host() -> dict[str, object]:
    """The machine, with what its CPU has for 8-bit products, and versions."""
    found = detect()
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    return {
        "machine": machine(),
        "flags": [flag for flag in wanted if flag in (found.flags or ())],
        "8_bit_products_saturate": found.saturates,
        "versions": versions(),
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ZOO), choices=list(ZOO), metavar="NAME")
    parser.add_argument("--tools", nargs="+", default=TOOLS, choices=TOOLS)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="of onnxpress: recipe, pass or recipe file")
    parser.add_argument("--samples", type=int, default=32, help="rows for calibration")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, for each variant")
    parser.add_argument("--memory", type=float, default=8.0, help="GB at which a tool is ended")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a tool is ended")
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    """Print a table for each model."""
    options = arguments().parse_args()
    console = Console(width=200)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    models: list[dict[str, object]] = []
    result = {**host(), "options": settings, "models": models}
    for model in options.models:
        tried = [
            each
            for each in variants(options.recipes)
            if each.name in (FLOAT, NORMALISED)
            or (each.tool in options.tools and (each.models is None or model in each.models))
        ]
        contest = Contest(
            model=model,
            variants=tried,
            samples=options.samples,
            threads=options.threads,
            seconds=options.seconds,
            bounds=Bounds(seconds=options.timeout, nbytes=int(options.memory * 1e9)),
        )
        try:
            models.append(contest.run(console))
        except OnnxpressError as error:  # the model or its samples cannot be had
            console.print(f"{model}: {error}")
            models.append({"model": model, "failed": str(error)})
        if options.json:  # after each, so that nothing is lost
            options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
