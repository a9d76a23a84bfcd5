"""Which tensors hurt: each is turned into codes alone, and what that does to the outputs of the model is measured.

A copy of the model gets a switch for each tensor that may carry codes: `Where(select[i], decoded(coded(x)), x)`. One
session then runs any choice of tensors on codes, so that hundreds of them are tried without loading a model twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import Floats, Ints
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.quantize.placement import Wrapped
from onnxpress.rewriter.edits import add_node, set_input, set_output, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Values

BATCHES = 2
"""Batches of samples an ablation runs at most, once for each tensor."""

ROWS = 8
"""Samples that are enough, so that one large batch does."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedWeight:
    """The weight of a layer as codes.

    Attributes:
        node: the layer, in the model that the ablation is for.
        index: of the input that is the weight.
        codes: integers, of the shape of the weight.
        scale: float32 [channels], or [] for the whole tensor.
        zero: zero points, of the shape of `scale`.
        axis: of the scale; None for the whole tensor.
    """

    node: gs.Node
    index: int
    codes: Values
    scale: Floats
    zero: Ints
    axis: int | None


@dataclass(frozen=True, slots=True)
class Unit:
    """What is turned into codes alone.

    Attributes:
        tensor: its name.
        reader: the first output of the only node that reads the codes; None where all readers do.
        kind: of the tensor.
    """

    tensor: str
    reader: str | None
    kind: str  # "activation" or "weight"


@dataclass(frozen=True, slots=True)
class Ablation:
    """What each tensor on codes does to the outputs.

    Attributes:
        noise: of each unit alone, the greatest Σ (y − y')² / Σ y² of any output.
        together: the same with all units on codes.
        sizes: elements that each layer gives for the first batch, by its first output.
    """

    noise: Mapping[Unit, float]
    together: float
    sizes: Mapping[str, int]

    def ranking(self) -> list[tuple[Unit, float]]:
        """Units with the signal-to-noise ratio that each alone leaves, in dB, the worst first."""
        return sorted(((unit, decibels(noise)) for unit, noise in self.noise.items()), key=lambda pair: pair[1])


def ablate(
    model: Model,
    activations: Sequence[Wrapped],
    grids: Mapping[str, tuple[Floats, Ints]],
    weights: Sequence[CodedWeight],
    bench: Workbench,
) -> Ablation:
    """Turn each tensor into codes alone and compare the outputs of the model with those in float.

    Args:
        model: in float; it is not changed.
        activations: tensors that may carry codes; one with chosen readers is tried for each of them apart.
        grids: scale and zero point of each of them, by name.
        weights: of the layers.
        bench: brings the samples; a few batches are run.

    Raises:
        FeedError: there are no samples.
    """
    board = _Switchboard(model.clone())
    for each in activations:
        board.add_activation(each, *grids[each.tensor.name])
    for weight in weights:
        board.add_weight(weight)
    sizes = {weight.node.outputs[0].name: board.add_size(weight.node.outputs[0].name) for weight in weights}
    sort(board.model.graph)
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        board.finish().save(path)
        with Runner(path, providers=bench.providers, threads=bench.threads) as runner:
            return _measure(runner, board, sizes, bench)


def _measure(runner: Runner, board: _Switchboard, sizes: Mapping[str, str], bench: Workbench) -> Ablation:
    if bench.feed is None:
        raise FeedError("what codes do to the outputs is tried on samples; give some with --data")
    count = len(board.units)
    sums = _Sums(count + 1)
    counted: dict[str, int] = {}
    for batch in bench.feed.spread(BATCHES, rows=ROWS):
        reference = runner.run(board.choose(batch, ()))
        if not counted:
            counted = {name: int(reference[size]) for name, size in sizes.items()}
        floats = {name: y for name, y in reference.items() if y.dtype.kind == "f" and name not in sizes.values()}
        if not floats:  # nothing that codes could make a little worse
            break
        sums.add_signal(floats)
        for index in bench.progress.track(range(count + 1), label="tensors on codes", total=count + 1):
            chosen = range(count) if index == count else (index,)
            sums.add_noise(index, floats, runner.run(board.choose(batch, chosen), outputs=list(floats)))
    noise = sums.relative()
    return Ablation(dict(zip(board.units, noise[:count], strict=True)), noise[count], counted)


@dataclass(slots=True)
class _Sums:
    """Sums of squares by output."""

    units: int
    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add_signal(self, outputs: Mapping[str, Array]) -> None:
        for name, y in outputs.items():
            self.signal[name] = self.signal.get(name, 0.0) + _square(y)

    def add_noise(self, unit: int, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        for name, y in reference.items():
            same_shape = outputs[name].shape == y.shape  # of detections there may be more or fewer
            error = _square(outputs[name].astype(np.float64) - y) if same_shape else math.inf
            self.noise.setdefault(name, np.zeros(self.units))[unit] += error

    def relative(self) -> list[float]:
        """The greatest relative noise of each unit."""
        if not self.noise:
            return [0.0] * self.units
        ratios = [self.noise[name] / (self.signal[name] or math.nan) for name in self.noise]
        worst = np.nan_to_num(np.max(ratios, axis=0), nan=math.inf)
        return [float(each) for each in worst]


def _square(array: Array) -> float:
    flat = array.astype(np.float64).reshape(-1)
    flat = flat[np.isfinite(flat)]
    return float(flat @ flat)


class _Switchboard:
    """A model with switches in the making."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.units: list[Unit] = []
        self._nodes = {tensor.name: node for node in model.graph.nodes for tensor in node.outputs}
        self._select = gs.Variable(model.names.fresh("select"), np.dtype(np.bool_), [0])
        model.graph.inputs.append(self._select)

    def add_activation(self, wrapped: Wrapped, scale: Floats, zero: Ints) -> None:
        """Add the switches of one activation."""
        grid = [self.model.add_weight(hint, each) for hint, each in (("s", scale), ("z", zero))]
        name = wrapped.tensor.name
        if wrapped.readers is None:
            producer, raw = self._nodes[name], gs.Variable(self.model.names.fresh("f"))
            index = next(i for i, tensor in enumerate(producer.outputs) if tensor.name == name)
            tensor = producer.outputs[index]
            set_output(producer, index, raw)
            self._switch(Unit(name, None, "activation"), self._rounded(raw, grid), raw, outputs=[tensor])
            return
        rounded: gs.Tensor | None = None
        for reader, index in wrapped.readers:
            node = self._nodes[reader.outputs[0].name]
            tensor = node.inputs[index]
            rounded = rounded if rounded is not None else self._rounded(tensor, grid)
            unit = Unit(name, reader.outputs[0].name, "activation")
            set_input(node, index, self._switch(unit, rounded, tensor))

    def add_weight(self, weight: CodedWeight) -> None:
        """Add the switch of the weight of one layer."""
        node = self._nodes[weight.node.outputs[0].name]
        old = node.inputs[weight.index]
        inputs: list[gs.Tensor] = [self.model.add_weight("w", weight.codes)]
        inputs += [self.model.add_weight(hint, each) for hint, each in (("s", weight.scale), ("z", weight.zero))]
        attrs: dict[str, object] = {} if weight.axis is None else {"axis": weight.axis}
        unit = Unit(old.name, weight.node.outputs[0].name, "weight")
        set_input(node, weight.index, self._switch(unit, self._add("DequantizeLinear", inputs, attrs), old))

    def add_size(self, tensor: str) -> str:
        """Let the number of elements of a tensor be an output; gives its name."""
        node = self._nodes[tensor]
        size = self._add("Size", [node.outputs[0]])
        size.dtype, size.shape = np.dtype(np.int64), []
        self.model.graph.outputs.append(size)
        return str(size.name)

    def finish(self) -> Model:
        """The model, which now knows how many switches there are."""
        self._select.shape = [len(self.units)]
        return self.model

    def choose(self, batch: Batch, units: Iterable[int]) -> dict[str, Array]:
        """A batch in which some units are on codes."""
        select = np.zeros(len(self.units), np.bool_)
        select[list(units)] = True
        return {**batch, str(self._select.name): select}

    def _switch(
        self, unit: Unit, coded: gs.Tensor, plain: gs.Tensor, *, outputs: Sequence[gs.Tensor] | None = None
    ) -> gs.Tensor:
        index = self.model.add_weight("i", np.array(len(self.units), np.int64))
        self.units.append(unit)
        on = self._add("Gather", [self._select, index], {"axis": 0})
        return add_node(self.model, self.model.graph, "Where", [on, coded, plain], hint="switch", outputs=outputs)

    def _rounded(self, tensor: gs.Tensor, grid: list[gs.Tensor]) -> gs.Tensor:
        return self._add("DequantizeLinear", [self._add("QuantizeLinear", [tensor, *grid]), *grid])

    def _add(self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, object] | None = None) -> gs.Tensor:
        return add_node(self.model, self.model.graph, op, inputs, hint="switch", attrs=attrs)
