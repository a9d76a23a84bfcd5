"""What the passes for structured weights share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.evaluate import extract
from onnxpress.passes.encode.functions import OLDEST_OPSET
from onnxpress.passes.encode.measuring import seconds_more
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import activation_of, check_sole
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.pace import pace
from onnxpress.passes.report import Report
from onnxpress.passes.seen import shapes_seen
from onnxpress.passes.selection import Layout, RefusalError, SitePass, check_choice, check_flag, skipping
from onnxpress.passes.structure.fitting import Found, find, write
from onnxpress.passes.structure.forms import Shape, Structure, decode_at_load, stored_bytes
from onnxpress.passes.structure.products import Stopwatch, check_product, replace
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

_FUNCTIONS = 1024
"""Bytes of a decoding function, its calls and sizes, about: what a weight must save besides."""

_ROUNDING = {"float64": 1e-2, "float32": 1e-2, "float16": 2e-2, "bfloat16": 5e-2}
"""Relative difference, of what ONNX Runtime decodes to what was fitted, that rounding explains."""


@dataclass(slots=True, eq=False)
class _Layer:
    """A site with what it becomes."""

    site: Site
    structure: Structure
    way: tuple[str, float] | None = None
    nbytes: int = 0
    found: Found | None = field(default=None)


@dataclass(frozen=True, kw_only=True)
class StructurePass(SitePass):
    """A pass that gives Gemm, MatMul and pointwise Conv weights that few parameters tell.

    For size, the parameters are stored, and ONNX Runtime computes the dense weight of them when it creates a session: a
    smaller file that runs as fast as before. Passes behind this one see no weights in such layers. For speed, the layer
    is replaced by nodes that compute with the parameters, where that was measured to be faster.

    With samples, layers are taken in graph order: each reads what the layers before give that have their new weights
    already, and weight and bias are fitted to what the original gave. Where the weight nearest to the old one does
    better on samples held out, that is taken. Without samples the error of the weights counts.

    Attributes:
        goal: `size` or `latency`.
        correct: with samples, fit to the outputs of layers; otherwise samples are not used.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too.
    """

    learns: ClassVar[bool] = True
    goal: Literal["size", "latency"] = "size"
    correct: bool = True
    vary: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "goal", ("size", "latency"))
        check_flag(self, "correct")
        check_flag(self, "vary")

    @abstractmethod
    def structure(self, shape: Shape) -> Structure:
        """What a weight becomes.

        Raises:
            RefusalError: it cannot.
        """

    @property
    def times(self) -> bool:
        """See `Pass.times`."""
        return True

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Give every site that is made smaller, and faster where that is the goal, another weight."""
        report, original = self.report(), model.clone()
        layers = self._possible(model, report)
        if self.goal == "latency":
            layers = _faster(model, layers, bench, report)
        if bench.feed is not None and self.correct and layers:
            self._learn(model, original, layers, bench, report)
        else:
            for each in bench.progress.track(layers, label=self.name, total=len(layers)):
                with skipping(report, each.site.name):
                    _settle(model, each, None, bench.seed)
        for each in layers:
            if each.found is not None:
                _put(model, each, each.found, bench, report)
        sweep(model)
        if self.goal == "latency" and report.changes and bench.feed is not None:
            _time_whole(original, model, bench, report)
        elif self.goal == "size" and report.changes:
            _time_loading(original, model, bench, report)
        return report

    def _possible(self, model: Model, report: Report) -> list[_Layer]:
        left = []
        for site in self.candidates(model, report):
            with skipping(report, site.name):
                shape = _matrix(model, site)
                structure = self.structure(shape)
                needed = structure.nbytes(shape, values_of(site.weight).dtype.itemsize)
                if needed + _FUNCTIONS >= site.nbytes:
                    taken = f"{needed} bytes and about {_FUNCTIONS} for nodes"
                    raise RefusalError(f"{structure.name} would save nothing: {taken} ≥ {site.nbytes}")
                if self.goal == "latency":
                    check_product(site)
                left.append(_Layer(site, structure, nbytes=site.nbytes))
        return left

    def _learn(self, model: Model, original: Model, layers: Sequence[_Layer], bench: Workbench, report: Report) -> None:
        """Between two steps nothing but weights may change, so nodes come at the end."""
        bench = with_varied(original, bench, report) if self.vary else bench
        by_site = {id(each.site): each for each in layers}
        for site, pair in equations(model, original, [each.site for each in layers], bench):
            with skipping(report, site.name):
                _settle(model, by_site[id(site)], pair, bench.seed)


def _settle(model: Model, layer: _Layer, pair: Pair | RefusalError | None, seed: int) -> None:
    """Give a layer its weight, dense for now."""
    found = find(model, layer.site, layer.structure, pair, seed=seed)
    write(model, layer.site, found)
    layer.found = found


def _matrix(model: Model, site: Site) -> Shape:
    """Outputs and inputs of a weight that is a matrix.

    Raises:
        RefusalError: it is none, or not for its layer alone.
    """
    standard = (site.node.domain or "") in DEFAULT_DOMAINS
    if site.op not in ("Gemm", "MatMul", "Conv") or not standard:
        raise RefusalError(f"is a weight of {site.op}; only Gemm, MatMul and pointwise Conv get a structure")
    if any(use.graph is not model.graph for use in site.uses):
        raise RefusalError("it runs inside a branch or a loop")
    if "batch" in site.axes:
        raise RefusalError("its weight is a stack of matrices")
    kernel = [size for size, axis in zip(site.shape, site.axes, strict=True) if axis == "kernel"]
    if any(size != 1 for size in kernel) or site.groups != 1:
        raise RefusalError("only a pointwise Conv of one group is a matrix")
    if model.opset < OLDEST_OPSET:
        raise RefusalError(f"opset {model.opset} lacks operators that compute it: raise it to {OLDEST_OPSET}")
    check_sole(model, site)
    out = Layout.of(site).rows
    return out, site.size // out


def _faster(model: Model, layers: Sequence[_Layer], bench: Workbench, report: Report) -> list[_Layer]:
    """The layers that a way of their structure computes faster; the others are skipped with the figures."""
    watch, left = Stopwatch(bench, model.opset), []
    seen = shapes_seen(model, [activation_of(each.site.uses[0]) for each in layers], bench)
    for layer, what in zip(bench.progress.track(layers, label="time", total=len(layers)), seen, strict=True):
        with skipping(report, layer.site.name):
            if what is None:
                raise RefusalError("nobody knows the shape of its input: give samples with --data")
            out = Layout.of(layer.site).rows
            example = layer.structure.example((out, layer.site.size // out))
            layer.way = watch.best(layer.site, example, what.shape)
            left.append(layer)
    return left


def _put(model: Model, layer: _Layer, found: Found, bench: Workbench, report: Report) -> None:
    """Write a layer, and tell of it."""
    site, form = layer.site, found.form
    told = [layer.structure.name]
    if layer.way is None:
        decoded = decode_at_load(model, site, form)
        (array,) = evaluate(extract(model, [decoded]), optimise=False, threads=bench.threads)
        off = relative_error(Layout.of(site).from_rows(form.dense()), array.astype(np.float64))
        if off > _ROUNDING[values_of(site.weight).dtype.name]:
            raise InvariantError(f"weight '{site.weight.name}' decodes to something else: a bug, please report")
        after = stored_bytes(form)
        told.append(f"{after / layer.nbytes:.2%} of the bytes, decoded at load")
    else:
        name, speed = layer.way
        way = next(each for each in form.ways() if each.name == name)
        before = model.weight_bytes()
        replace(model, site.uses[0], way, values_of(site.weight).dtype, Layout.of(site).rows)
        sweep(model)
        after = model.weight_bytes() - before + layer.nbytes
        told.append(f"{name}, measured {speed:.2f} times as fast as dense")
    told += [found.account] if found.account else []
    report.change(site.name, ", ".join(told), bytes_before=layer.nbytes, bytes_after=after, error=found.error)


def _time_loading(original: Model, model: Model, bench: Workbench, report: Report) -> None:
    """Say how much longer a session takes to create, in which the weights are computed."""
    if (more := seconds_more(original, model, bench)) is not None:
        report.notes.append(f"ONNX Runtime takes {1000 * more:,.1f} ms longer to load it")


def _time_whole(original: Model, model: Model, bench: Workbench, report: Report) -> None:
    """Time the whole model beside what it was; where it is no faster, all is as it was."""
    (whole,) = pace(original, [model], bench)
    report.notes.append(f"the whole model is {whole.describe('before')}")
    if not whole.slower:
        return
    model.reset(original.skeleton())
    for each in report.changes:
        report.skip(each.site, f"is taken back, for the whole model is {whole.describe('before')}: {each.action}")
    report.changes.clear()
