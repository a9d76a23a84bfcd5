"""What other weights do to the outputs of the model, tried in one session: weights are inputs of a copy of the model.

A consumer whose columns for some units are zero behaves as if the units were gone, so hundreds of ways to prune are
tried without loading a model twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.metrics import Comparison
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.ends import expose, find_end
from onnxpress.rewriter.edits import add_node, set_input, set_output, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use, find_sites

BATCHES = 8
"""Batches of samples that are run at most, once for each trial."""

ROWS = 16
"""Samples that are enough."""

_BIASED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class Altered:
    """Other values of one weight.

    Attributes:
        weight: as stored.
        shift: what is added to the outputs of its layers, [out]; None for nothing.
    """

    weight: Array
    shift: Array | None


class Trials:
    """A model open in ONNX Runtime, with the outputs it gives for some samples."""

    def __init__(
        self, runner: Runner, ports: Mapping[str, _Port], judged: Mapping[str, int | None], bench: Workbench
    ) -> None:
        """Run the samples with the weights as they are; `open_trials` makes one."""
        self._runner, self._ports, self._judged = runner, ports, judged
        self._given = {name: array for port in ports.values() for name, array in port.inputs(None).items()}
        self._batches = [dict(batch) for batch in _some(bench)]
        self._references = [self._run(batch, {}) for batch in self._batches]

    @property
    def useful(self) -> bool:
        """Whether the model has outputs that can get a little worse."""
        return any(self._references)

    def takes(self, site: str) -> bool:
        """Whether the weight of a site can be tried with other values."""
        return site in self._ports

    def noise(self, altered: Mapping[str, Altered]) -> float:
        """The greatest Σ(y − y')² / Σy² of any output, with other values of some weights; inf for no number.

        Where the output comes from a Softmax, a Sigmoid or the like, what that reads is judged; of a Softmax without
        the mean, which makes no difference.

        Args:
            altered: by the name of the site.
        """
        changes = {name: a for site, each in altered.items() for name, a in self._ports[site].inputs(each).items()}
        sums: dict[str, Comparison] = {}
        for batch, reference in zip(self._batches, self._references, strict=True):
            found = self._run(batch, changes)
            for name, y in reference.items():
                if found[name].shape != y.shape:  # of detections there may be more or fewer
                    return math.inf
                sums.setdefault(name, Comparison()).update(y, found[name])
        return max((_relative(each) for each in sums.values()), default=0.0)

    def _run(self, batch: Batch, changes: Mapping[str, Array]) -> dict[str, Array]:
        found = self._runner.run({**batch, **self._given, **changes}, outputs=list(self._judged))
        floats = {name: y for name, y in found.items() if y.dtype.kind == "f"}
        axes = {name: axis for name, axis in self._judged.items() if axis is not None and name in floats}
        return floats | {
            name: floats[name] - floats[name].mean(axis=axis, keepdims=True) for name, axis in axes.items()
        }


def _relative(sums: Comparison) -> float:
    if sums.unlike or not math.isfinite(sums.noise):
        return math.inf
    if sums.noise == 0:
        return 0.0
    return sums.noise / sums.signal if sums.signal else math.inf


@contextmanager
def open_trials(model: Model, sites: Iterable[Site], bench: Workbench) -> Iterator[Trials]:
    """Open a copy of a model in which the weights of some sites are inputs.

    Args:
        model: is not changed.
        sites: of the model.
        bench: brings the samples; a few batches are run.

    Raises:
        FeedError: there are no samples.
    """
    copy = model.clone()
    wanted = {site.name for site in sites}
    ports = {
        site.name: _Port.of(copy, site) for site in find_sites(copy) if site.name in wanted and _movable(copy, site)
    }
    judged = _judged(copy)
    sort(copy.graph)
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        copy.save(path)
        with Runner(path, providers=bench.providers, threads=bench.threads) as runner:
            yield Trials(runner, ports, judged, bench)


def _judged(model: Model) -> dict[str, int | None]:
    """Tensors whose noise counts, made outputs, with the axis along which a mean makes no difference."""
    found: dict[str, int | None] = {}
    for output in list(model.graph.outputs):
        end = find_end(model, output)
        found[expose(model, output, end.depth)] = end.axis
    return found


def _movable(model: Model, site: Site) -> bool:
    layers = {id(use.node) for use in site.uses}
    return (
        all(use.graph is model.graph for use in site.uses)
        and all(id(node) in layers for node in site.weight.outputs)
        and site.weight.dtype == np.float32
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Port:
    """The inputs through which a weight gets in.

    Attributes:
        weight: its name.
        values: as they are.
        shifts: names of what is added to the outputs of its layers, with their shapes.
    """

    weight: str
    values: Array
    shifts: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: Model, site: Site) -> _Port:
        """Give a site such inputs."""
        values = site.array()
        port = _input(model, "weight", values.shape)
        shifts = {}
        for use in site.uses:
            set_input(use.node, use.index, port)
            if use.node.op in _BIASED and use.node.attrs.get("alpha", 1.0) == 1.0:
                shape = _shift_shape(use)
                shifts[_shifted(model, use, shape)] = shape
        return cls(str(port.name), values, shifts)

    def inputs(self, altered: Altered | None) -> dict[str, Array]:
        """What to feed."""
        shift = altered.shift if altered is not None else None
        added = {
            name: np.zeros(shape, np.float32) if shift is None else np.asarray(shift, np.float32).reshape(shape)
            for name, shape in self.shifts.items()
        }
        return {self.weight: self.values if altered is None else altered.weight, **added}


def _shift_shape(use: Use) -> tuple[int, ...]:
    """Such that one number for each output broadcasts against what a layer writes."""
    outputs = use.node.inputs[use.index].shape[use.axes.index("out")]
    if use.node.op == "Conv":
        return (outputs, *(1 for axis in use.axes if axis == "kernel"))
    return (outputs,) if use.index else (outputs, 1)


def _shifted(model: Model, use: Use, shape: tuple[int, ...]) -> str:
    port = _input(model, "shift", shape)
    output, raw = use.node.outputs[0], gs.Variable(model.names.fresh("unshifted"))
    set_output(use.node, 0, raw)
    add_node(model, model.graph, "Add", [raw, port], hint="shift", outputs=[output])
    return str(port.name)


def _input(model: Model, hint: str, shape: tuple[int, ...]) -> gs.Variable:
    port = gs.Variable(model.names.fresh(hint), np.dtype(np.float32), list(shape))
    model.graph.inputs.append(port)
    return port


def _some(bench: Workbench) -> Iterator[Batch]:
    """A few batches, spread over the feed."""
    feed = bench.feed
    if feed is None:
        raise FeedError("what pruning does to the outputs is tried on samples; give some with --data")
    rows = 0
    for batch in feed if feed.count is not None and feed.count <= BATCHES else feed.split(BATCHES)[0]:
        yield batch
        rows += max((len(array) for array in batch.values() if array.ndim), default=1)
        if rows >= ROWS:
            return
