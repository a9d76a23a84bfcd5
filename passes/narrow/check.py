"""How a model in 16 bits compares with the one it was made from, on samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Comparison
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.narrow.plan import Plan
from onnxpress.passes.quantize.ranges import measure
from onnxpress.passes.quantize.trial import some
from onnxpress.passes.report import Report
from onnxpress.rewriter.model import Model

GOOD = 30.0
"""Decibels below which the user is warned."""


def compare(model: Model, before: Model, bench: Workbench) -> Mapping[str, Comparison]:
    """Run both models on a few batches; outputs of floating-point numbers by name, none without samples.

    An output of another shape, as the number of detections may be, has nothing to compare and counts as unlike.
    """
    if bench.feed is None:
        return {}
    found: dict[str, Comparison] = {}
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        paths = [Path(folder) / name for name in ("before.onnx", "after.onnx")]
        before.save(paths[0])
        model.save(paths[1])
        with (
            Runner(paths[0], providers=bench.providers, threads=bench.threads) as old,
            Runner(paths[1], providers=bench.providers, threads=bench.threads) as new,
        ):
            for batch in some(bench.feed):
                wanted, given = old.run(batch), new.run(fitting(batch, new))
                for name, array in wanted.items():
                    if array.dtype.kind == "f":
                        _add(found.setdefault(name, Comparison()), array, given[name])
    return found


def _add(comparison: Comparison, reference: Array, test: Array) -> None:
    if test.shape == reference.shape:
        comparison.update(reference, test)
    else:
        comparison.unlike += 1


def fitting(batch: Batch, runner: Runner) -> Batch:
    """A batch in the types that a model takes."""
    types = {spec.name: spec.dtype for spec in runner.input_specs}
    return {name: array.astype(types.get(name, array.dtype), copy=False) for name, array in batch.items()}


def in_types_of(model: Model, bench: Workbench) -> Workbench:
    """The workbench, with samples in the types that a model takes."""
    types = {spec.name: spec.dtype for spec in model.inputs}
    return bench if bench.feed is None else replace(bench, feed=Feed(_Typed(bench.feed, types), count=bench.feed.count))


class _Typed:
    """Samples of a feed, in other types."""

    def __init__(self, feed: Feed, types: Mapping[str, np.dtype]) -> None:
        self._feed, self._types = feed, types

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._feed.samples():
            batch = {k: v.astype(self._types.get(k, v.dtype), copy=False) for k, v in sample.batch.items()}
            yield sample._replace(batch=batch)


def has_new_odd(found: Mapping[str, Comparison]) -> bool:
    """Whether an output became NaN or infinite where it was not, or the other way round, or changed its shape."""
    return any(each.unlike for each in found.values())


def culprits(model: Model, plan: Plan, before: Mapping[str, int], bench: Workbench) -> list[str]:
    """The nodes in 16 bits where NaN or infinities begin, by the names of their first outputs.

    Args:
        model: converted.
        plan: of the nodes of the model before; names stayed the same.
        before: entries of each tensor that were NaN or infinite before.
        bench: brings the samples.
    """
    alive = {t.name for node in model.graph.nodes for t in node.outputs}
    names = [t.name for node in plan.order for t in node.outputs if t.name in alive]
    odd = {name: seen.odd for name, seen in measure(model, names, bench).items()}
    worse = {name for name in names if odd[name] > before.get(name, 0)}
    found = []
    for node in plan.order:
        begins = any(t.name in worse for t in node.outputs) and not any(_source(t) in worse for t in node.inputs)
        if begins and id(node) in plan.low:
            found.append(str(node.outputs[0].name))
    return found


def _source(tensor: gs.Tensor) -> str:
    """The name of a tensor, or of what it was cast from."""
    cast = tensor.inputs[0] if tensor.inputs and tensor.inputs[0].op == "Cast" else None
    return str(tensor.name if cast is None else cast.inputs[0].name)


def tell(found: Mapping[str, Comparison], name: str, report: Report) -> None:
    """Report how close the outputs are; warn where one is not."""
    for output, comparison in found.items():
        ratio = comparison.sqnr
        if math.isnan(ratio):
            report.warnings.append(f"output '{output}' is NaN or infinite, or of another shape, where float32 is not")
        elif ratio < GOOD:
            report.warnings.append(
                f"output '{output}' has {ratio:.1f} dB signal to noise in {name}, less than {GOOD:g}: exclude layers, "
                "or verify with the task's own metric"
            )
    if found:
        output, worst = min(found.items(), key=lambda each: each[1].sqnr)
        report.change("graph", f"outputs at {worst.sqnr:.1f} dB signal to noise or better, the least in '{output}'")
