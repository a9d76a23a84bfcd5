"""An LSTM on 8-bit codes as ONNX Runtime's operator has it: how it is written, and how good it is.

DynamicQuantizeLSTM takes the inputs of LSTM, its weights as codes [directions, input or hidden, 4·hidden], and their
scales and zero points. The zero points of int8 weights must be zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import Floats, Grid, Ints, dequantize, largest_magnitude, quantize, symmetric_scale
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.quantize.coding import weight_grid
from onnxpress.passes.quantize.ranges import watch
from onnxpress.passes.quantize.trial import Total, decibels, some
from onnxpress.passes.selection import LAZY
from onnxpress.rewriter.edits import add_node, detach, output_ids, sort
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import Array, Dense, Produced, Values, values_of

DOMAIN = "com.microsoft"
OPERATOR = "DynamicQuantizeLSTM"

_ATTRIBUTES = (
    "activations",
    "activation_alpha",
    "activation_beta",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How LSTMs are quantized.

    Attributes:
        per_channel: one scale for each row of a gate's weights instead of one for each direction.
        narrow: weights of 7 bits, where products of 8 would saturate.
        layer_sqnr: an LSTM whose result on codes has a lower signal-to-noise ratio, in dB, stays float; where no sample
            shows it, the ratio of its weights counts.
    """

    per_channel: bool = True
    narrow: bool = False
    layer_sqnr: float = 20.0

    @property
    def grid(self) -> Grid:
        """The codes of weights."""
        return weight_grid(narrow=self.narrow)


@dataclass(frozen=True, slots=True, eq=False)
class Lstm:
    """An LSTM and its two weights, W [directions, 4·hidden, input] and R [directions, 4·hidden, hidden]."""

    graph: gs.Graph
    node: gs.Node
    sites: tuple[Site, Site]


@dataclass(frozen=True, slots=True)
class Level:
    """How good an LSTM is on codes: of its results on samples, or of its weights alone."""

    decibels: float
    seen: bool


@dataclass(frozen=True, slots=True, eq=False)
class CodedWeight:
    """A weight as the operator reads it.

    Attributes:
        codes: int8 [directions, input or hidden, 4·hidden].
        scale: float32 [directions, 4·hidden], or [directions].
        error: ‖W − W'‖ / ‖W‖.
    """

    codes: Values
    scale: Floats
    error: float

    @classmethod
    def of(cls, site: Site, setting: Setting) -> CodedWeight:
        """The codes of a weight; those of a large one are computed when they are read."""
        old, grid, shape = values_of(site.weight), setting.grid, site.shape
        directions, gates, width = shape
        rows = (directions * gates, width) if setting.per_channel else (directions, gates * width)

        def coded() -> Ints:
            return quantize(old.load().reshape(rows), scale, grid=grid, axis=0)

        def turned() -> Array:
            return np.ascontiguousarray(coded().reshape(shape).transpose(0, 2, 1))

        weight = old.load().reshape(rows)
        scale = symmetric_scale(largest_magnitude(weight, axis=0), grid)
        error = relative_error(weight, dequantize(coded(), scale, axis=0))
        lazy = old.nbytes >= LAZY
        codes: Values = Produced((directions, width, gates), grid.dtype, turned) if lazy else Dense(turned())
        return cls(codes, scale.reshape((directions, gates) if setting.per_channel else (directions,)), error)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return int(self.codes.nbytes + self.scale.nbytes + self.scale.size)


class LstmWriter:
    """Writes LSTMs on codes; a weight that several read is written once."""

    def __init__(self, model: Model, coded: Mapping[int, CodedWeight]) -> None:
        self._model = model
        self._coded = coded
        self._tensors: dict[int, tuple[gs.Constant, gs.Constant, gs.Constant]] = {}

    def replace(self, layer: Lstm) -> None:
        """Let the operator on codes take the place of an LSTM."""
        outputs = list(layer.node.outputs)
        inputs, attrs = self._inputs(layer.node, layer.sites), _attributes(layer)
        detach(layer.node)
        add_node(self._model, layer.graph, OPERATOR, inputs, hint="l", attrs=attrs, outputs=outputs, domain=DOMAIN)
        self._model.import_domain(DOMAIN, 1)

    def beside(self, layer: Lstm, node: gs.Node) -> list[gs.Tensor]:
        """The twin of `node`, a copy of the LSTM in this model, with outputs of its own."""
        outputs = [
            gs.Variable(self._model.names.fresh("twin")) if tensor.name else gs.Variable.empty()
            for tensor in node.outputs
        ]
        inputs, attrs = self._inputs(node, layer.sites), _attributes(layer)
        graph = self._model.graph
        add_node(self._model, graph, OPERATOR, inputs, hint="twin", attrs=attrs, outputs=outputs, domain=DOMAIN)
        self._model.import_domain(DOMAIN, 1)
        return outputs

    def _inputs(self, node: gs.Node, sites: tuple[Site, Site]) -> list[gs.Tensor]:
        (w, w_scale, w_zero), (r, r_scale, r_zero) = (self._weight(site) for site in sites)
        others = list(node.inputs[3:8])  # bias, sequence_lens, initial_h, initial_c, P
        others += [gs.Variable.empty() for _ in range(5 - len(others))]
        return [node.inputs[0], w, r, *others, w_scale, w_zero, r_scale, r_zero]

    def _weight(self, site: Site) -> tuple[gs.Constant, gs.Constant, gs.Constant]:
        key = id(site)
        if key not in self._tensors:
            coded, add = self._coded[key], self._model.add_weight
            zero = np.zeros(coded.scale.shape, np.int8)
            self._tensors[key] = add("w", coded.codes), add("s", coded.scale), add("z", zero)
        return self._tensors[key]


def _attributes(layer: Lstm) -> dict[str, object]:
    found = {name: layer.node.attrs[name] for name in _ATTRIBUTES if name in layer.node.attrs}
    kept = {name: value for name, value in found.items() if value != []}
    return {**kept, "hidden_size": layer.sites[1].shape[2]}


def measure_lstms(
    model: Model, layers: Sequence[Lstm], coded: Mapping[int, CodedWeight], bench: Workbench
) -> dict[int, Level]:
    """How good each layer is on codes, by the identity of its node.

    In a copy of the model its twin reads the same activations as the LSTM; ratio = 10·log10(Σ y² / Σ (y − y')²), the
    least over its outputs. Inside of a subgraph, and without samples, that of the worse weight.
    """
    found = {
        id(layer.node): Level(min(decibels(1, coded[id(site)].error ** 2) for site in layer.sites), seen=False)
        for layer in layers
    }
    tried = [layer for layer in layers if layer.graph is model.graph]
    if bench.feed is None or not tried:
        return found
    twin = model.clone()
    written, public = LstmWriter(twin, coded), output_ids(twin)
    places = {tensor.name: node for node in twin.graph.nodes for tensor in node.outputs if tensor.name}
    sums: dict[int, list[tuple[str, str]]] = {}
    for layer in tried:
        node = places[next(tensor.name for tensor in layer.node.outputs if tensor.name)]
        both = list(zip(list(node.outputs), written.beside(layer, node), strict=True))
        read = [(one, two) for one, two in both if one.outputs or id(one) in public]
        sums[id(layer.node)] = [_energies(twin, one, two) for one, two in read]
    sort(twin.graph)
    totals = {name: Total() for pairs in sums.values() for pair in pairs for name in pair}
    watch(twin, totals, replace(bench, feed=some(bench.feed)))
    for key, pairs in sums.items():
        ratios = [decibels(totals[signal].value, totals[noise].value) for signal, noise in pairs]
        found[key] = Level(min(ratios, default=math.inf), seen=True)
    return found


def _energies(model: Model, one: gs.Tensor, two: gs.Tensor) -> tuple[str, str]:
    """Names of the sums of squares of a tensor and of its difference from another."""
    graph, total = model.graph, dict[str, object](keepdims=0)
    error = add_node(model, graph, "Sub", [two, one], hint="twin")
    first, second = (add_node(model, graph, "ReduceSumSquare", [t], hint="twin", attrs=total) for t in (one, error))
    return str(first.name), str(second.name)
