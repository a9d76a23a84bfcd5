"""How good each layer is on codes, tried on samples before anything is decided.

Beside each layer, in a copy of the model, stands its twin on codes, which reads the same float activations. So the
error of one layer is seen apart from that of all others, in one walk through a few samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import Floats, Ints
from onnxpress.passes.quantize.ranges import watch
from onnxpress.rewriter.edits import add_node, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model

BATCHES = 8
"""Batches of samples a trial runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A layer that may run on codes.

    Attributes:
        node: the layer, in the model that the trial is for.
        tail: what carries its result, behind the operator that vanishes into it.
        weight: 8-bit codes.
        scale: of the weight.
        axis: of the scale.
        zero: the code of 0.
        floor: below which those who read the result do not tell values apart.
    """

    node: gs.Node
    tail: gs.Tensor
    weight: Array
    scale: Floats
    axis: int | None
    zero: int = 0
    floor: float = -math.inf


class Total:
    """The sum of a number over all batches."""

    def __init__(self) -> None:
        """Start at zero."""
        self.value = 0.0

    def update(self, array: Array, /) -> None:
        """Add one batch."""
        self.value += float(array)

    def merge(self, other: Total, /) -> None:
        """Add what another one summed."""
        self.value += other.value

    def state(self) -> dict[str, Array]:
        """The sum so far."""
        return {"value": np.array(self.value)}


def try_layers(
    model: Model, candidates: Sequence[Candidate], grids: Mapping[str, tuple[Floats, Ints]], bench: Workbench
) -> list[float]:
    """The signal-to-noise ratio of each layer on codes, 10·log10(Σ y² / Σ (y − y')²) in dB.

    Args:
        model: in float; it is not changed.
        candidates: layers of its main graph.
        grids: scale and zero point of the tensors that become codes, by name.
        bench: brings the samples.
    """
    twins = _Twins(model.clone(), grids)
    names = [twins.add(each) for each in candidates]
    sort(twins.model.graph)
    totals = {name: Total() for pair in names for name in pair}
    feed = bench.feed
    watch(twins.model, totals, replace(bench, feed=None if feed is None else some(feed)))
    return [decibels(totals[signal].value, totals[noise].value) for signal, noise in names]


def some(feed: Feed) -> Feed:
    """A few batches, spread evenly over the feed where its length is known."""
    return feed if feed.count is not None and feed.count <= BATCHES else feed.split(BATCHES)[0]


def checked(feed: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a feed.

    Raises:
        FeedError: there are none.
    """
    empty = True
    for batch in feed:
        empty = False
        yield batch
    if empty:
        raise FeedError("the feed holds no samples; give at least one")


def decibels(signal: float, noise: float) -> float:
    """The ratio of two sums of squares; −inf, too, where one is beyond float32 and tells nothing of the layer."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(signal + noise) else -math.inf


class _Twins:
    """A model with the twins of its layers in the making."""

    def __init__(self, model: Model, grids: Mapping[str, tuple[Floats, Ints]]) -> None:
        self.model = model
        self._grids = grids
        self._nodes = {node.outputs[0].name: node for node in model.graph.nodes}
        self._rounded: dict[str, gs.Tensor] = {}

    def add(self, candidate: Candidate) -> tuple[str, str]:
        """Add a twin; gives the names of the sums of squares of the result and of its error."""
        node = self._nodes[candidate.node.outputs[0].name]
        source, last = node.inputs[0], self._nodes[candidate.tail.name]
        result = self._copy(node, [self._round_input(source), self._weight(candidate), *node.inputs[2:]])
        if last is not node:
            result = self._copy(last, [result, *last.inputs[1:]])
        tail = last.outputs[0]
        if tail.name in self._grids:
            result = self._round(result, tail.name)
        if candidate.floor > -math.inf:
            floor = self.model.add_weight("f", np.asarray(candidate.floor, np.float32))
            result, tail = (self._add("Max", [each, floor]) for each in (result, tail))
        error = self._add("Sub", [result, tail])
        return self._energy(tail), self._energy(error)

    def _weight(self, candidate: Candidate) -> gs.Tensor:
        # The zero point is written out, because ONNX Runtime (seen in 1.24) makes a broken QGemm of a Gemm without.
        zero = np.full(candidate.scale.shape, candidate.zero, candidate.weight.dtype)
        arrays = candidate.weight, candidate.scale, zero
        inputs: list[gs.Tensor] = [self.model.add_weight("w", array) for array in arrays]
        return self._add("DequantizeLinear", inputs, {} if candidate.axis is None else {"axis": candidate.axis})

    def _round_input(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor.name not in self._rounded:
            self._rounded[tensor.name] = self._round(tensor, tensor.name)
        return self._rounded[tensor.name]

    def _round(self, tensor: gs.Tensor, name: str) -> gs.Tensor:
        scale, zero = (self.model.add_weight(hint, each) for hint, each in zip("sz", self._grids[name], strict=True))
        return self._add("DequantizeLinear", [self._add("QuantizeLinear", [tensor, scale, zero]), scale, zero])

    def _copy(self, node: gs.Node, inputs: list[gs.Tensor]) -> gs.Tensor:
        return self._add(str(node.op), inputs, dict(node.attrs))

    def _energy(self, tensor: gs.Tensor) -> str:
        return str(self._add("ReduceSumSquare", [tensor], {"keepdims": 0}).name)

    def _add(self, op: str, inputs: list[gs.Tensor], attrs: dict[str, object] | None = None) -> gs.Tensor:
        return add_node(self.model, self.model.graph, op, inputs, hint="twin", attrs=attrs)
