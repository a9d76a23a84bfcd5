"""What other weights do to the outputs of the model, tried in one session: weights are inputs of a copy of the model.

A consumer whose columns for some units are zero behaves as if the units were gone, so hundreds of ways to prune are
tried without loading a model twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.judge import BATCHES, ROWS, Judge
from onnxpress.rewriter.edits import add_node, set_input, set_output, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use, find_sites

_SHIFTED = ("Conv", "Gemm", "MatMul", "FusedMatMul")
"""Operators that write sums by weights, to which a constant can be added behind them."""


@dataclass(frozen=True, slots=True, eq=False)
class Altered:
    """Other values of one weight.

    Attributes:
        weight: as stored.
        shift: what is added to its products W·x, [batch·out]; None for nothing. Layers that write something else than
            such products, those with an activation of their own for example, go without.
    """

    weight: Array
    shift: Array | None


class Trials:
    """A model open in ONNX Runtime, with the outputs it gives for some samples."""

    def __init__(self, runner: Runner, ports: Mapping[str, _Port], judge: Judge, batches: Iterable[Batch]) -> None:
        """Run the samples with the weights as they are; `open_trials` makes one."""
        self._runner, self._ports, self._judge = runner, ports, judge
        self._given = {name: array for port in ports.values() for name, array in port.inputs(None).items()}
        self._batches = [dict(batch) for batch in batches]
        for batch in self._batches:
            judge.learn(self._run(batch, {}))

    @property
    def useful(self) -> bool:
        """Whether the model has outputs that can get a little worse."""
        return self._judge.useful

    def takes(self, site: str) -> bool:
        """Whether the weight of a site can be tried with other values."""
        return site in self._ports

    def noise(self, altered: Mapping[str, Altered]) -> float:
        """The greatest Σ(y − y')² / Σy² of any output, with other values of some weights (see `Judge.noise`).

        Args:
            altered: by the name of the site.
        """
        changes = {name: a for site, each in altered.items() for name, a in self._ports[site].inputs(each).items()}
        return self._judge.noise(self._run(batch, changes) for batch in self._batches)

    def _run(self, batch: Batch, changes: Mapping[str, Array]) -> dict[str, Array]:
        return self._runner.run({**batch, **self._given, **changes}, outputs=self._judge.outputs)


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
    if bench.feed is None:
        raise FeedError("what pruning does to the outputs is tried on samples; give some with --data")
    copy = model.clone()
    wanted = {site.name for site in sites}
    ports = {
        site.name: _Port.of(copy, site) for site in find_sites(copy) if site.name in wanted and _movable(copy, site)
    }
    judge = Judge(copy)
    sort(copy.graph)
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        copy.save(path)
        with Runner(path, providers=bench.providers, threads=bench.threads) as runner:
            yield Trials(runner, ports, judge, bench.feed.spread(BATCHES, rows=ROWS))


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
        shifts: names of what is added to the outputs of its layers, with their shapes and what a layer multiplies its
            products by.
    """

    weight: str
    values: Array
    shifts: Mapping[str, tuple[tuple[int, ...], float]]

    @classmethod
    def of(cls, model: Model, site: Site) -> _Port:
        """Give a site such inputs."""
        values = site.array()
        port = _input(model, "weight", values.shape)
        shifts = {}
        for use in site.uses:
            set_input(use.node, use.index, port)
            if use.node.op in _SHIFTED:
                shape = _shift_shape(site, use)
                shifts[_shifted(model, use, shape)] = shape, float(use.node.attrs.get("alpha", 1.0))
        return cls(str(port.name), values, shifts)

    def inputs(self, altered: Altered | None) -> dict[str, Array]:
        """What to feed."""
        shift = altered.shift if altered is not None else None
        added = {
            name: np.zeros(shape, np.float32) if shift is None else (factor * shift).astype(np.float32).reshape(shape)
            for name, (shape, factor) in self.shifts.items()
        }
        return {self.weight: self.values if altered is None else altered.weight, **added}


def _shift_shape(site: Site, use: Use) -> tuple[int, ...]:
    """Such that one number for each output broadcasts against what a layer writes."""
    outputs = site.shape[use.axes.index("out")]
    if use.node.op == "Conv":
        return (outputs, *(1 for axis in use.axes if axis == "kernel"))
    batch = [size for size, axis in zip(site.shape, use.axes, strict=True) if axis == "batch"]
    return (*batch, 1, outputs) if use.index else (*batch, outputs, 1)


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
