"""Deep Compression as a plain .onnx file: bytes against accuracy of the LeNets, a transformer, and optimal clusters.

    python -m benchmarks.sharing [--models NAME ...] [--threads N] [--seconds S] [--plot FILE.svg] [--json FILE]

Each file is pruned by second order, its values are shared, and it is encoded; no labels, no gradients. It is the file
that is judged, on the 10,000 test digits, and timed while it loads. Beside it stand the ratios that Han et al. (2016),
Choi et al. (2017) and Ullrich et al. (2017) published for these networks, after retraining. MiniLM is stored in
sub-vectors, and timed in turns with its float self.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.clusters import DISTRIBUTIONS, clusters, clusters_table
from benchmarks.contest import Case, Contest, Row, Wish
from benchmarks.loading import opening
from benchmarks.peers import Bounds
from onnxpress.artifact import Artifact
from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.host import cores, machine, versions
from onnxpress.models.zoo import ZOO, path
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.strip import Strip
from onnxpress.rewriter.model import Model

PUBLISHED = {
    "lenet300": (("Han", 40.0, 0.0158), ("Ullrich", 64.0, 0.0194)),
    "lenet5": (("Han", 39.0, 0.0074), ("Choi", 51.25, 0.0), ("Ullrich", 162.0, 0.0097)),
}
"""Times smaller, and the error on the digits where it was published (else 0), by network."""

SPARSITIES = (0.88, 0.90, 0.92, 0.94, 0.955, 0.97)
BITS = (3, 4, 5)
WISHES = {"lenet300": (40.0, 0.008), "lenet5": (39.0, 0.003)}
"""Times smaller, and the accuracy that may be lost."""

CODED = {
    "minilm": (
        ("4 bits", 8, (Wish("bytes", most=12.3e6), Wish("sqnr", least=13), Wish("faster", least=0.95))),
        ("3 bits", 6, (Wish("bytes", most=9.5e6),)),
    )
}
"""By model: name, bits of a code of two weights, and what the file must come to."""

_BOUNDS = Bounds(seconds=900, nbytes=int(8e9))


@dataclass(frozen=True, slots=True)
class Point:
    """One file.

    Attributes:
        sparsity: part of the weights that is zero.
        bits: of a shared value.
        nbytes: of the file.
        ratio: times smaller than the float file.
        accuracy: on the test digits.
        load: seconds to a session, the least of some.
    """

    sparsity: float
    bits: int
    nbytes: int
    ratio: float
    accuracy: float
    load: float


def curve(name: str, threads: int, console: Console) -> tuple[float, list[Point]]:
    """The accuracy of the float model, and all files."""
    entry, source = ZOO[name], path(name)
    model = Pipeline([])(Model.load(source)).model
    feed = open_feed(entry.calibration, inputs=model.inputs)
    test, whole = open_feed(entry.feed, inputs=model.inputs), Artifact.of(source).nbytes
    bench, points = Workbench(feed=feed, threads=threads), []
    with tempfile.TemporaryDirectory(prefix="sharing-") as folder:
        for sparsity in SPARSITIES:
            pruned = Pipeline([PruneSecondOrder(sparsity=sparsity)], normalise=False)(model, bench).model
            for bits in BITS:
                with console.status(f"{name}: {sparsity:.1%} zeros, {bits} bits"):
                    made = Pipeline([ShareKMeans(bits=bits, refit=True), Encode(), Strip()], normalise=False)(
                        pruned, bench
                    )
                    file = Path(folder) / "made.onnx"
                    made.model.save(file)
                    nbytes = Artifact.of(file).nbytes
                    accuracy = _accuracy(file, test, entry.metric, threads)
                load = opening({"made": file}, threads)["made"]
                points.append(Point(sparsity, bits, nbytes, whole / nbytes, accuracy, load))
    return _accuracy(source, test, entry.metric, threads), points


def _accuracy(file: Path, test: Feed, metric: str | None, threads: int) -> float:
    with Runner(file, threads=threads) as runner:
        return load_metric(metric or "top1")(runner, test)


def coded(model: str, threads: int, seconds: float, console: Console) -> list[Row]:
    """A model and its files of sub-vectors."""
    cases = [
        Case(
            name=name,
            model=model,
            passes=[{"share-vectors": {"length": 2, "bits": bits}}, {"encode": {}}, {"strip": {}}],
            wishes=wishes,
        )
        for name, bits, wishes in CODED[model]
    ]
    return Contest(model=model, cases=cases, threads=threads, seconds=seconds, bounds=_BOUNDS).run(console)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, the smallest file first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.nbytes, -each.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def table(name: str, whole: float, points: Sequence[Point]) -> Table:
    """The Pareto front."""
    columns = ("zeros", "bits", "kB", "times smaller", "accuracy", "lost", "load ms")
    result = Table(*columns, title=f"{name}: float {whole:.2%}")
    for each in pareto(points):
        cells = (f"{each.nbytes / 1e3:.1f}", f"{each.ratio:.1f}", f"{each.accuracy:.2%}")
        lost, load = f"{100 * (whole - each.accuracy):.2f}", f"{1e3 * each.load:.1f}"
        result.add_row(f"{each.sparsity:.1%}", str(each.bits), *cells, lost, load)
    for who, ratio, error in PUBLISHED[name]:
        result.add_row(f"[dim]{who}", "", "", f"{ratio:.1f}", f"{1 - error:.2%}" if error else "–", "", "")
    return result


def coded_table(model: str, rows: Sequence[Row]) -> Table:
    """Files of sub-vectors beside the float model."""
    result = Table("", "MB", "SQNR dB", "metric", "× normalised (quartiles)", "CPU s", "peak MB", title=model)
    for row in rows:
        if row.failed:
            result.add_row(row.case, f"[red]{row.failed}")
            continue
        of = row.figures
        speed = f"{of['faster']:.2f} ({of['faster_quartile_1']:.2f}–{of['faster_quartile_3']:.2f})"
        metric = f"{of['metric']:.2%}" if "metric" in of else "–"
        work = f"{of['cpu_seconds']:.0f}", f"{of['peak'] / 1e6:.0f}"
        result.add_row(row.case, f"{of['bytes'] / 1e6:.2f}", f"{of['sqnr']:.2f}", metric, speed, *work)
    return result


def plot(curves: dict[str, tuple[float, list[Point]]], file: Path) -> None:
    """Accuracy against ratio, beside what was published."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (name, (whole, points)) in zip(
        np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True
    ):
        front = pareto(points)
        axes.plot([p.ratio for p in points], [p.accuracy for p in points], ".", color="#c3c9d4")
        axes.plot([p.ratio for p in front], [p.accuracy for p in front], "o-", color="#2f6fde", label="onnxpress")
        axes.axhline(whole, color="#888888", linewidth=0.8, linestyle=":", label="float")
        for who, ratio, error in PUBLISHED[name]:
            if error:
                axes.plot(ratio, 1 - error, "x", color="#c8553d")
                axes.annotate(who, (ratio, 1 - error), textcoords="offset points", xytext=(4, 4), fontsize=8)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlabel("times smaller, the whole file")
        axes.set_ylabel("accuracy on 10,000 digits")
        axes.set_ylim(0.96, 1.0)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(file)


def main() -> int:
    """Print a table for each model; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*WISHES, *CODED], choices=[*WISHES, *CODED])
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, for each file of sub-vectors")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console, broken = Console(width=140), []
    curves = {name: curve(name, options.threads, console) for name in options.models if name in WISHES}
    for name, (whole, points) in curves.items():
        console.print(table(name, whole, points))
        ratio, lost = WISHES[name]
        if not any(each.ratio >= ratio and whole - each.accuracy <= lost + 1e-9 for each in points):
            broken.append(f"{name}: {ratio:g} times smaller at {lost:.1%} lost")
    rows = {name: coded(name, options.threads, options.seconds, console) for name in options.models if name in CODED}
    for name, found in rows.items():
        console.print(coded_table(name, found))
        broken += [f"{name}, {row.case}: {wish}" for row in found for wish in row.wishes if not wish.met(row.figures)]
    beside = {name: clusters(name) for name in DISTRIBUTIONS}
    console.print(clusters_table(beside))
    if any(each.faster < 20 or each.error_ratio > 1 for each in beside.values()):
        broken.append("optimal clusters 20 times as fast as scikit-learn's, with no greater error")
    if options.plot and curves:
        plot(curves, options.plot)
    if options.json:
        told = {name: {"float": whole, "points": list(map(asdict, points))} for name, (whole, points) in curves.items()}
        content = {
            "machine": machine(),
            "versions": versions(),
            "models": told,
            "coded": {name: [row.plain() for row in found] for name, found in rows.items()},
            "clusters": {name: asdict(each) for name, each in beside.items()},
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    for each in broken:
        console.print(f"[red]does not hold: {each}", highlight=False)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
