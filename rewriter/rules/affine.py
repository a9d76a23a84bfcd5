"""Per-channel scales and shifts after a linear layer belong to its weight and bias.

    (W x + b) * s + t = (s W) x + (s b + t)

BatchNormalization at inference is one such map (Ioffe and Szegedy, 2015); exporters also write it as Sub, Mul, Add.
The algebra is done in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import add_node, output_ids, redirect, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Array, Dense, Values, values_of

_STANDARD = (None, "", "ai.onnx")
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class _Map:
    """y = scale * x + shift for each channel, in float64."""

    scale: Array
    shift: Array

    def then(self, other: _Map) -> _Map:
        """This map followed by another."""
        return _Map(self.scale * other.scale, self.shift * other.scale + other.shift)

    @property
    def keeps_scale(self) -> bool:
        """Whether it only shifts."""
        return bool((self.scale == 1).all())


def fold_affine(model: Model, shapes: Shapes) -> Outcome:
    """Fold BatchNormalization, Mul, Div, Add and Sub by channel constants into the linear layer before them."""
    outcome = Outcome()
    public = output_ids(model)
    for graph in graphs(model.graph):
        fold = _Fold(model, graph, shapes, public, {id(node) for node in graph.nodes}, outcome)
        for node in list(graph.nodes):
            if node.op in _LINEAR and node.domain in _STANDARD:
                fold.into(node)
    _explain_left(model, outcome)
    return outcome


@dataclass(frozen=True, slots=True)
class _Fold:
    """The folding in one graph."""

    model: Model
    graph: gs.Graph
    shapes: Shapes
    public: set[int]
    inside: set[int]
    outcome: Outcome

    def into(self, node: gs.Node) -> None:
        """Fold what follows `node` into it."""
        chain, total = self._chain(node)
        if not chain or total is None:
            return
        weight, names = node.inputs[1], " + ".join(n.op for n in chain)
        if node.op == "MatMul" and len(chain) == 1 and total.keeps_scale:
            return  # its bias: there is no better place for it
        if len(weight.outputs) > 1 or weight.dtype.type not in _FLOATS:
            self.outcome.left.append((node.name, f"{names} not folded: its weight is shared"))
        elif weight.dtype == np.float16 and not _fits_half(node, total):
            self.outcome.left.append((node.name, f"{names} not folded: the result overflows float16"))
        else:
            last = _apply(self.model, self.graph, node, total)
            redirect(self.model, self.graph, chain[-1].outputs[0], last)
            self.outcome.done.append((node.name or last.name, f"{names} folded into {node.op}"))

    def _chain(self, node: gs.Node) -> tuple[list[gs.Node], _Map | None]:
        """The affine nodes that follow `node`, and what they do together."""
        channels = _channels(node)
        if channels is None or _bias(node, channels) is None:
            return [], None
        rank, axis = _place(node, self.shapes)
        chain: list[gs.Node] = []
        total = _Map(np.ones(channels), np.zeros(channels))
        tensor = node.outputs[0]
        while len(tensor.outputs) == 1 and id(tensor) not in self.public and id(tensor.outputs[0]) in self.inside:
            reader = tensor.outputs[0]
            step = _step(reader, tensor, channels, rank, axis)
            if step is None:
                break
            chain.append(reader)
            total, tensor = total.then(step), reader.outputs[0]
        return chain, total


def _step(node: gs.Node, x: gs.Tensor, channels: int, rank: int, axis: int) -> _Map | None:
    """What `node` does to each channel of `x`, if it is an affine map with constants."""
    if node.domain not in _STANDARD:
        return None
    if node.op == "BatchNormalization":  # of axis 1, which is that of the channels only where the rank says so
        return _batch_norm(node, x, channels) if axis == 1 else None
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is x
    constant = node.inputs[1] if first else node.inputs[0]
    if not isinstance(constant, gs.Constant) or (node.op == "Div" and not first):
        return None
    value = _by_channel(values_of(constant), channels, rank, axis)
    if value is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op == "Add":
        return _Map(one, value)
    if node.op == "Sub":
        return _Map(one, -value) if first else _Map(-one, value)
    if node.op == "Div":
        return _Map(1.0 / value, zero) if value.all() else None
    return _Map(value, zero)


def _batch_norm(node: gs.Node, x: gs.Tensor, channels: int) -> _Map | None:
    extra = any(out.name and out.outputs for out in node.outputs[1:])
    if node.inputs[0] is not x or extra or node.attrs.get("training_mode") or node.attrs.get("spatial") == 0:
        return None
    parts = node.inputs[1:5]
    if len(parts) != 4 or not all(isinstance(p, gs.Constant) and p.shape == (channels,) for p in parts):
        return None
    gamma, beta, mean, variance = (values_of(p).load().astype(np.float64) for p in parts)
    epsilon = float(np.float32(node.attrs.get("epsilon", 1e-5)))
    if (variance + epsilon <= 0).any():
        return None
    scale = gamma / np.sqrt(variance + epsilon)
    return _Map(scale, beta - mean * scale)


def _by_channel(values: Values, channels: int, rank: int, axis: int) -> Array | None:
    """A broadcast constant as one value a channel, None if it varies along another axis or adds axes."""
    array = values.load()
    if array.ndim > rank or array.dtype.type not in _FLOATS:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if full.size == 1:
        return np.full(channels, float(full.reshape(-1)[0]))
    if full.shape[axis] != channels or full.size != channels:
        return None
    return full.reshape(-1).astype(np.float64)


def _channels(node: gs.Node) -> int | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if not isinstance(weight, gs.Constant):
        return None
    if node.op == "Conv":
        return int(weight.shape[0])
    if node.op == "MatMul":
        return int(weight.shape[1]) if len(weight.shape) == 2 else None
    if node.op == "ConvTranspose":
        return int(weight.shape[1]) * int(node.attrs.get("group", 1))
    return int(weight.shape[0 if node.attrs.get("transB", 0) else 1])


def _place(node: gs.Node, shapes: Shapes) -> tuple[int, int]:
    """Rank of what the layer writes, and the axis of its channels; of a MatMul of unknown rank 1 and the last, -1."""
    if node.op == "MatMul":
        shape = shapes.shape(node.outputs[0])
        return (1, -1) if shape is None else (len(shape), len(shape) - 1)
    return (2 if node.op == "Gemm" else len(node.inputs[1].shape)), 1


def _bias(node: gs.Node, channels: int) -> Array | None:
    """The bias by channel in float64, zeros where there is none; None where it cannot be folded into."""
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if bias is None:
        return np.zeros(channels)
    if not isinstance(bias, gs.Constant) or (value := _by_channel(values_of(bias), channels, 2, 1)) is None:
        return None
    return value * (node.attrs.get("beta", 1.0) if node.op == "Gemm" else 1.0)


def _new_bias(node: gs.Node, total: _Map) -> Array:
    bias = _bias(node, total.scale.size)
    assert bias is not None  # the chain was only built because there is one
    return (bias * total.scale + total.shift).astype(node.inputs[1].dtype)


def _scaled_weight(node: gs.Node, scale: Array) -> Array:
    weight = values_of(node.inputs[1]).load()
    if node.op == "Conv":
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif node.op == "ConvTranspose":  # [in, out/groups, ...]: the rows of one group share its scales
        groups = int(node.attrs.get("group", 1))
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        scaled = (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    else:  # Gemm and MatMul: [in, out], or [out, in]
        scaled = weight * (scale.reshape(-1, 1) if node.attrs.get("transB", 0) else scale)
    return scaled.astype(weight.dtype)


def _fits_half(node: gs.Node, total: _Map) -> bool:
    with np.errstate(over="ignore"):
        parts = _scaled_weight(node, total.scale), _new_bias(node, total)
    return all(bool(np.isfinite(part).all()) for part in parts)


def _apply(model: Model, graph: gs.Graph, node: gs.Node, total: _Map) -> gs.Tensor:
    """Give the layer its new weight and bias; returns what it writes."""
    weight, shift = node.inputs[1], Dense(_new_bias(node, total))
    if not total.keeps_scale:
        scaled = Dense(_scaled_weight(node, total.scale))
        set_input(node, 1, model.add_weight(f"{weight.name}_scaled", scaled))
    if node.op == "MatMul":
        out = node.outputs[0]
        if not total.shift.any():
            return out
        return add_node(model, graph, "Add", [out, model.add_weight(f"{out.name}_bias", shift)], hint=f"{out.name}_add")
    set_input(node, 2, model.add_weight(f"{node.name or node.op}_bias", shift))
    if node.op == "Gemm":
        node.attrs["beta"] = 1.0
    return node.outputs[0]


def _explain_left(model: Model, outcome: Outcome) -> None:
    """Say why a BatchNormalization stays."""
    for graph in graphs(model.graph):
        for node in graph.nodes:
            if node.op == "BatchNormalization" and node.inputs and node.inputs[0].name:
                before = node.inputs[0].inputs[0].op if node.inputs[0].inputs else "a graph input"
                outcome.left.append((node.name, f"BatchNormalization stays: what it reads comes from {before}"))
