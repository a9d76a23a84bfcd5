"""Memory and processor time of calibration, beside onnxruntime.quantization, in one interleaved run.

    python -m benchmarks.calibration [MODEL ...] [--samples N,N] [--rounds N] [--cores N] [--json FILE]

A MODEL is a name of onnxpress.models; open-nsfw and ppocr-rec by default. Every figure is that of a fresh interpreter
which loads the model as it was exported, observes every float tensor over single samples, and estimates all ranges:
the peak of resident memory, and processor time, user and system, imports included. More samples than there are come
round again. Beside ONNX Runtime's calibration of the export stands that of our normalised model, which has fewer nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import onnxpress
from onnxpress.calibration.feeds import open_feed
from onnxpress.models.zoo import path, recipe
from onnxpress.passes.quantize.ranges import METHODS

Sample = Mapping[str, NDArray[np.generic]]

Run = dict[str, Any]

FIGURES = ("peak", "cpu", "tensors")

STORED = 64
"""Samples that are kept in files."""


def samples(folder: Path, count: int) -> Iterator[Sample]:
    """Single samples, read one by one, as often round as it takes."""
    files = sorted(folder.glob("*.npz"))
    for position in range(count):
        with np.load(files[position % len(files)]) as stored:
            yield {name: stored[name] for name in stored.files}


def ours(model: str, folder: str, count: int, method: str) -> None:
    """Normalise, observe, estimate."""
    from onnxpress.calibration.feeds import Feed
    from onnxpress.calibration.feeds import open_feed as opened
    from onnxpress.passes.base import Workbench
    from onnxpress.passes.quantize.ranges import Estimate, gather

    class Round:
        def __iter__(self) -> Iterator[Sample]:
            return samples(Path(folder), count)

    normalised = onnxpress.Pipeline([])(onnxpress.Model.load(model)).model
    estimate = Estimate(method=method)
    feed: Feed = opened(Round(), inputs=normalised.inputs)
    seen = gather(normalised, Workbench(feed=feed), kind=estimate.kind)
    tell({name: estimate.of(observer) for name, observer in seen.observers.items()})


def theirs(model: str, folder: str, count: int, method: str) -> None:
    """What quantize_static of onnxruntime.quantization does first."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = samples(Path(folder), count)

        def get_next(self) -> Sample | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as scratch:
        augmented = str(Path(scratch) / "augmented.onnx")
        calibrator = create_calibrator(
            Path(model), None, augmented_model_path=augmented, calibrate_method=getattr(CalibrationMethod, method)
        )
        calibrator.collect_data(Reader())
        tell(calibrator.compute_data())


def tell(ranges: object) -> None:
    """Print what this interpreter took so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    # not getrusage: its maximum is inherited from the process that started this one
    peak = 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    count = len(ranges.keys()) if hasattr(ranges, "keys") else 0
    print(json.dumps({"peak": peak, "cpu": used.ru_utime + used.ru_stime, "tensors": count}))


def store(name: str, folder: Path) -> None:
    """Write single samples of a model's calibration feed, each to a file."""
    inputs = onnxpress.Model.load(path(name)).inputs
    written = 0
    for batch in open_feed(recipe(name).calibration, inputs=inputs):
        for row in range(min(len(next(iter(batch.values()))), STORED - written)):
            arrays = {key: value[row : row + 1] for key, value in batch.items()}
            np.savez(folder / f"{written:04}.npz", **arrays)
            written += 1
        if written == STORED:
            return


def cases(counts: list[int]) -> Iterator[tuple[str, int, str, tuple[str, str]]]:
    """Title, samples, function, and its model and method, of all that is measured."""
    for count in counts:
        yield "onnxruntime, min-max", count, "theirs", ("export", "MinMax")
        yield "onnxruntime, min-max, normalised by us", count, "theirs", ("normalised", "MinMax")
        for method in METHODS:
            yield f"onnxpress, {method}", count, "ours", ("export", method)
    for method in ("Percentile", "Entropy"):  # keep every activation
        yield f"onnxruntime, {method.lower()}", min(counts), "theirs", ("export", method)


def measure(name: str, counts: list[int], rounds: int, cores: int) -> list[Run]:
    """Run all cases in turns; gives the median of each."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store(name, folder)
        models = {"export": path(name), "normalised": folder / "normalised.onnx"}
        onnxpress.Pipeline([])(onnxpress.Model.load(path(name))).model.save(models["normalised"])
        found: dict[tuple[str, int], list[Run]] = {}
        for _ in range(rounds):
            for title, count, function, (source, method) in cases(counts):
                arguments = (str(models[source]), scratch, count, method)
                call = f"from benchmarks.calibration import {function}; {function}{arguments!r}"
                found.setdefault((title, count), []).append(_fresh(call, cores))
    return [
        {"model": name, "what": title, "samples": count, "runs": runs}
        | {key: statistics.median(run[key] for run in runs) for key in FIGURES if all(key in run for run in runs)}
        for (title, count), runs in found.items()
    ]


def _fresh(call: str, cores: int) -> Run:
    """Run a line of Python in an interpreter of its own, on some of the cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    line = f"import os; os.sched_setaffinity(0, {allowed!r}); {call}"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    if done.returncode:
        return {"failure": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    took: Run = json.loads(done.stdout.splitlines()[-1])
    return took


def _cells(row: Run) -> list[str]:
    if "peak" not in row:
        failure = next(run["failure"] for run in row["runs"] if "failure" in run)
        return ["", "", f"fails: {failure[:60]}"]
    return [f"{row['tensors']:.0f}", f"{row['peak'] / 1e6:.0f}", f"{row['cpu']:.1f}"]


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["open-nsfw", "ppocr-rec"])
    parser.add_argument("--samples", default="32,512", help="numbers of samples")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = [int(each) for each in options.samples.split(",")]
    rows = []
    for name in options.models:
        found = measure(name, counts, options.rounds, options.cores)
        table = Table("", "samples", "tensors", "peak, MB", "CPU, s", title=name)
        for row in found:
            table.add_row(row["what"], str(row["samples"]), *_cells(row))
        Console().print(table)
        rows += found
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
