"""Normalise or quantize a model by onnxpress, by one pass or by a recipe.

Options: `recipe`, the name of a recipe or of a pass, or a recipe file; none only normalises. A recipe with a goal or
limits decides by what it measures, so it goes through `compress`, proof and timing included; any other does the same
work as the other tools: passes, then the file.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from measure import Job, Meter

import onnxpress
from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.compression import compress
from onnxpress.options import read_pass
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.registry import known
from onnxpress.recipe import Recipe, load
from onnxpress.rewriter.model import Model

SECONDS = 3.0
"""For a recipe's own timing."""


def chosen(name: str | None) -> Recipe:
    """The passes to run."""
    passes: tuple[Pass, ...] = ()
    if name is not None:
        if name not in known():
            return load(name)
        passes = (read_pass(name, name),)
    return Recipe(name=name or "normalise", passes=passes)


def run(job: Job, recipe: Recipe) -> list[str]:
    """Write the result; what the user would be told of it."""
    if recipe.goal or recipe.limits.model_dump(exclude_none=True):
        result = compress(
            job.source,
            job.target,
            recipe=recipe,
            data=job.samples,
            test=job.samples,
            threads=job.threads,
            bench_seconds=SECONDS,
        )
        return [f"delivers the {result.version} model"]
    with Runner(job.source, threads=job.threads) as runner:
        feed = open_feed(job.samples, inputs=runner.input_specs) if job.files() else None
    result = Pipeline(recipe.passes)(Model.load(job.source), Workbench(feed=feed, threads=job.threads))
    result.model.save(Path(job.target))
    return []


job = Job.read()
meter = Meter(job)
notes = run(job, chosen(job.options["recipe"]))
meter.report([onnxpress.__name__, onnxruntime.__name__], notes=notes)
