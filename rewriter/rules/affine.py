"""Per-channel scales and shifts after a linear layer belong to its weight and bias.

    (W x + b) * s + t = (s W) x + (s b + t)

BatchNormalization at inference is one such map (Ioffe and Szegedy, 2015); exporters also write it as Sub, Mul, Add.
The algebra is done in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import output_ids, redirect, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Array, Dense, Values, values_of

_STANDARD = (None, "", "ai.onnx")
_LINEAR = ("Conv", "ConvTranspose", "Gemm")
_FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class _Map:
    """y = scale * x + shift for each channel, in float64."""

    scale: Array
    shift: Array

    def then(self, other: _Map) -> _Map:
        """This map followed by another."""
        return _Map(self.scale * other.scale, self.shift * other.scale + other.shift)


def fold_affine(model: Model, shapes: Shapes) -> Outcome:
    """Fold BatchNormalization, Mul, Div, Add and Sub by channel constants into the linear layer before them."""
    outcome = Outcome()
    public = output_ids(model)
    for graph in graphs(model.graph):
        for node in list(graph.nodes):
            if node.op in _LINEAR and node.domain in _STANDARD:
                _fold_into(model, graph, node, public, outcome)
    _explain_left(model, outcome)
    return outcome


def _fold_into(model: Model, graph: gs.Graph, node: gs.Node, public: set[int], outcome: Outcome) -> None:
    chain, total = _chain(node, public)
    if not chain or total is None:
        return
    weight, names = node.inputs[1], " + ".join(n.op for n in chain)
    if not isinstance(weight, gs.Constant) or len(weight.outputs) > 1 or weight.dtype.type not in _FLOATS:
        outcome.left.append((node.name, f"{names} not folded: its weight is shared or not constant"))
        return
    if weight.dtype == np.float16 and not _fits_half(node, total):
        outcome.left.append((node.name, f"{names} not folded: the result overflows float16"))
        return
    _apply(model, node, total)
    redirect(model, graph, chain[-1].outputs[0], node.outputs[0])
    out = node.outputs[0]
    outcome.done.append((node.name or out.name, f"{names} folded into {node.op}"))


def _chain(node: gs.Node, public: set[int]) -> tuple[list[gs.Node], _Map | None]:
    """The affine nodes that follow `node`, and what they do together."""
    channels = _channels(node)
    if channels is None or _bias(node, channels) is None:
        return [], None
    rank = 2 if node.op == "Gemm" else len(node.inputs[1].shape)
    chain: list[gs.Node] = []
    total = _Map(np.ones(channels), np.zeros(channels))
    tensor = node.outputs[0]
    while len(tensor.outputs) == 1 and id(tensor) not in public:
        reader = tensor.outputs[0]
        step = _step(reader, tensor, channels, rank)
        if step is None:
            break
        chain.append(reader)
        total, tensor = total.then(step), reader.outputs[0]
    return chain, total


def _step(node: gs.Node, x: gs.Tensor, channels: int, rank: int) -> _Map | None:
    """What `node` does to each channel of `x`, if it is an affine map with constants."""
    if node.domain not in _STANDARD:
        return None
    if node.op == "BatchNormalization":
        return _batch_norm(node, x, channels)
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is x
    constant = node.inputs[1] if first else node.inputs[0]
    if not isinstance(constant, gs.Constant) or (node.op == "Div" and not first):
        return None
    value = _by_channel(values_of(constant), channels, rank)
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


def _by_channel(values: Values, channels: int, rank: int) -> Array | None:
    """A broadcast constant as one value a channel, None if it varies along another axis or adds axes."""
    array = values.load()
    if array.ndim > rank or array.dtype.type not in _FLOATS:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if full.size == 1:
        return np.full(channels, float(full.reshape(-1)[0]))
    if full.shape[1] != channels or full.size != channels:
        return None
    return full.reshape(-1).astype(np.float64)


def _channels(node: gs.Node) -> int | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if not isinstance(weight, gs.Constant):
        return None
    if node.op == "Conv":
        return int(weight.shape[0])
    if node.op == "ConvTranspose":
        return int(weight.shape[1]) * int(node.attrs.get("group", 1))
    return int(weight.shape[0 if node.attrs.get("transB", 0) else 1])


def _bias(node: gs.Node, channels: int) -> Array | None:
    """The bias by channel in float64, zeros where there is none; None where it cannot be folded into."""
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if bias is None:
        return np.zeros(channels)
    if not isinstance(bias, gs.Constant) or (value := _by_channel(values_of(bias), channels, 2)) is None:
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
    else:
        scaled = weight * (scale.reshape(-1, 1) if node.attrs.get("transB", 0) else scale)
    return scaled.astype(weight.dtype)


def _fits_half(node: gs.Node, total: _Map) -> bool:
    with np.errstate(over="ignore"):
        parts = _scaled_weight(node, total.scale), _new_bias(node, total)
    return all(bool(np.isfinite(part).all()) for part in parts)


def _apply(model: Model, node: gs.Node, total: _Map) -> None:
    weight = node.inputs[1]
    bias = model.add_weight(f"{node.name or node.op}_bias", Dense(_new_bias(node, total)))
    if not np.array_equal(total.scale, np.ones_like(total.scale)):
        scaled = Dense(_scaled_weight(node, total.scale))
        set_input(node, 1, model.add_weight(f"{weight.name}_scaled", scaled))
    set_input(node, 2, bias)
    if node.op == "Gemm":
        node.attrs["beta"] = 1.0


def _explain_left(model: Model, outcome: Outcome) -> None:
    """Say why a BatchNormalization stays."""
    for graph in graphs(model.graph):
        for node in graph.nodes:
            if node.op == "BatchNormalization" and node.inputs and node.inputs[0].name:
                before = node.inputs[0].inputs[0].op if node.inputs[0].inputs else "a graph input"
                outcome.left.append((node.name, f"BatchNormalization stays: what it reads comes from {before}"))
