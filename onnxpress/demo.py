"""The demo: two models compressed, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxpress import tables
from onnxpress.calibration.progress import Progress
from onnxpress.compression import compress
from onnxpress.models import zoo
from onnxpress.outcome import CompressionResult
from onnxpress.page import write_page
from onnxpress.recipe import load
from onnxpress.report import account, document, to_json, write_text
from onnxpress.rewriter.errors import ConfigError
from onnxpress.terminal import Table

LENET = """\
description: LeNet-5 by prune, share and encode (Han et al., 2016), without training it again
goal: size
limits: {max_drop: 0.003}
passes:
  - prune-magnitude: {sparsity: 0.6}
  - share-kmeans: {bits: 4}
  - encode
"""
BENCH_SECONDS = 3.0


INT8 = """\
description: integer arithmetic; the recipe int8 without its search for layers that are best left in float
needs_data: true
passes:
  - quantize-static: {smooth: true, min_sqnr: 0}
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One model of the demo.

    Attributes:
        model: a name of `onnxpress.models.zoo`.
        title: what people call it.
        samples: what it is judged by.
        recipe: name of a built-in recipe, or the text of one.
    """

    model: str
    title: str
    samples: str
    recipe: str


JOBS = (
    Job("lenet5", "LeNet-5", "10,000 digits", LENET),
    Job("ppocr-rec", "PP-OCRv4 recognition", "500 lines", INT8),
)


def run_job(job: Job, folder: Path, *, threads: int | None, progress: Progress) -> CompressionResult:
    """Compress one model, and write it with its recipe and reports to `folder`.

    Calibration samples carry no labels and share none with the samples that judge.

    Raises:
        InputError: the model cannot be fetched or its samples not made, or the folder not written.
        LimitsNotMet: the result does not hold the recipe's limits.
    """
    source, entry = zoo.path(job.model), zoo.recipe(job.model)
    recipe: str | Path = job.recipe
    if "\n" in job.recipe:
        recipe = folder / f"{job.model}.yaml"
        write_text(job.recipe, recipe)
    result = compress(
        source,
        folder / f"{job.model}.onnx",
        recipe=load(recipe),
        data=entry.calibration,
        test=entry.feed,
        metric=entry.metric,
        threads=threads,
        bench_seconds=BENCH_SECONDS,
        progress=progress,
    )
    content = document("compression", account(result))
    write_text(to_json(content) + "\n", folder / f"{job.model}.json")
    write_page(result, folder / f"{job.model}.html")
    return result


def make_folder(folder: Path) -> None:
    """Make the folder of the demo.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}; name another with -o") from error


def table(done: Sequence[tuple[Job, CompressionResult]]) -> Table:
    """What the demo came to."""
    rows = []
    for job, result in done:
        parity = result.verification.providers[0]
        before, after = parity.metric_before or 0, parity.metric_after or 0
        rows.append(
            [
                job.title,
                f"{tables.size(result.bytes_before)} → {tables.size(result.bytes_after)}",
                f"{result.ratio:.1f}",
                f"{before:.2%} → {after:.2%}",
                job.samples,
                f"{result.speedup:.2f}",
                str(result.path),
            ]
        )
    columns = ("model", ">size", ">times smaller", ">accuracy", "measured on", ">times as fast", "file")
    return Table("demo", columns, rows)
