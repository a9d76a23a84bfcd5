"""Where the channels of a tensor can be scaled for free: in the constants of the nodes that produce it.

A positive factor f_c on channel c of X moves backwards through whatever only moves values or is positively homogeneous,
relu(f x) = f relu(x), up to nodes that hold one constant a channel:

    f (W x + b) = (f W) x + f b            f LayerNorm(x; g, b) = LayerNorm(x; f g, f b)            (A V) f = A (V f)

Channels are tracked as an array of their numbers that broadcasts against the tensor, so that factors of heads survive
the Reshape and Transpose around attention. Only tensors that nobody else reads are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.balance.factors import LINEAR, Channels, Target, covers, fits
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import Shapes

_SAME = ("Relu", "LeakyRelu", "PRelu", "Identity")
_POOLS = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool", "GlobalLpPool")
_MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


class Absorber:
    """Finds the constants that can take factors; the model must not change in between, but for `absorb`."""

    def __init__(self, model: Model, shapes: Shapes) -> None:
        """Look at the main graph."""
        self._shapes = shapes
        self._kept = output_ids(model)
        self._fixed = {id(tensor) for tensor in model.graph.inputs}
        self._inside = {id(node) for node in model.graph.nodes}

    def plan(self, tensor: gs.Tensor, channels: Channels, *, readers: Collection[int]) -> tuple[Target, ...]:
        """The constants that must be scaled so that the channels of a tensor are.

        Args:
            tensor: of the main graph.
            channels: numbers of its channels, such that it broadcasts against the tensor: [channels] for the last
                axis, [channels, 1, 1] for the last but two.
            readers: identities of the nodes that may read it.

        Raises:
            RefusalError: there are none; says why.
        """
        for reader in tensor.outputs:
            if id(reader) not in readers:
                raise RefusalError(f"'{tensor.name}' is also read by {reader.op} '{reader.name}'")
        if id(tensor) in self._kept:
            raise RefusalError(f"'{tensor.name}' is an output")
        if not tensor.inputs or id(tensor.inputs[0]) not in self._inside:
            raise RefusalError(f"'{tensor.name}' is an input")
        node = tensor.inputs[0]
        rule = _RULES.get(str(node.op)) if (node.domain or "") in DEFAULT_DOMAINS else None
        if rule is None or tensor is not node.outputs[0]:
            raise RefusalError(f"'{tensor.name}' comes from {node.op}, which has no place for factors of its channels")
        return tuple(rule(self, node, _squeezed(channels)))

    def behind(self, node: gs.Node, index: int, channels: Channels) -> tuple[Target, ...]:
        """What scales an operand of a node: a constant itself, or what produces a variable."""
        tensor = node.inputs[index]
        if sum(each is tensor for each in node.inputs) > 1:
            raise RefusalError(f"{node.op} '{node.name}' reads '{tensor.name}' twice")
        if isinstance(tensor, gs.Constant):
            return (self.target(node, index, channels),)
        return self.plan(tensor, channels, readers={id(node)})

    def target(self, node: gs.Node, index: int, channels: Channels, *, divides: bool = False) -> Target:
        """A constant operand as target.

        Raises:
            RefusalError: it is no constant of floats that only the model decides on.
        """
        tensor = node.inputs[index]
        if not isinstance(tensor, gs.Constant) or id(tensor) in self._fixed or tensor.dtype != np.float32:
            raise RefusalError(f"'{tensor.name}' of {node.op} '{node.name}' is no float32 constant")
        if node.op in LINEAR and index < 2 and (len(tensor.outputs) > 1 or id(tensor) in self._kept):
            raise RefusalError(f"the weight of {node.op} '{node.name}' is shared")
        return Target(node, index, channels, divides)

    def first_axis(self, node: gs.Node, channels: Channels) -> Channels:
        """Channels along axis 1 of what a node writes, [channels].

        Raises:
            RefusalError: they lie elsewhere, or it is unknown where axis 1 is.
        """
        rank = self.rank(node.outputs[0])
        weight = node.inputs[1] if node.op in ("Conv", "ConvTranspose") else None
        rank = len(weight.shape) if weight is not None and weight.shape is not None else rank
        if rank is None or channels.ndim != rank - 1 or prod(channels.shape[1:]) != 1:
            raise RefusalError(f"the factors do not lie along the channels of {node.op} '{node.name}'")
        return channels.reshape(-1)

    def rank(self, tensor: gs.Tensor) -> int | None:
        """Number of axes, None where unknown."""
        shape = self._shapes.shape(tensor)
        return None if shape is None else len(shape)

    def reshaped(self, node: gs.Node, channels: Channels) -> Channels:
        """Channels of what a node reads that only splits and joins axes.

        Raises:
            RefusalError: the sizes are unknown, or channels do not stay together.
        """
        new, old = self._shapes.shape(node.outputs[0]), self._shapes.shape(node.inputs[0])
        for wide in _static_ends(new or ()):
            for narrow in _static_ends(old or ()):
                if len(wide) >= channels.ndim and prod(wide) == prod(narrow) and fits(channels.shape, wide):
                    return _compressed(np.broadcast_to(channels, wide).reshape(narrow))
        raise RefusalError(f"{node.op} '{node.name}' mixes channels with axes of unknown size")


def _squeezed(channels: Channels) -> Channels:
    """Without axes of size one in front."""
    while channels.ndim > 1 and channels.shape[0] == 1:
        channels = channels[0]
    return channels


def _compressed(channels: Channels) -> Channels:
    """With size one along axes that make no difference."""
    for axis in range(channels.ndim):
        first = channels.take([0], axis)
        if (channels == first).all():
            channels = first
    return channels


def _static_ends(shape: tuple[int | str | None, ...]) -> Iterator[tuple[int, ...]]:
    """The last axes of a shape, from one on, as long as their sizes are known."""
    end: tuple[int, ...] = ()
    for size in reversed(shape):
        if not isinstance(size, int):
            return
        end = (size, *end)
        yield end


def _last_axis(node: gs.Node, channels: Channels, count: int) -> Channels:
    if channels.shape != (count,):
        raise RefusalError(f"the factors do not lie along the channels of {node.op} '{node.name}'")
    return channels


def _pass_on(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    yield from absorber.behind(node, 0, channels)


def _pool(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    absorber.first_axis(node, channels)
    yield from absorber.behind(node, 0, channels)


def _transpose(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    rank = absorber.rank(node.outputs[0])
    order = node.attrs.get("perm") or (None if rank is None else list(reversed(range(rank))))
    if order is None:
        raise RefusalError(f"the rank of '{node.outputs[0].name}' is unknown")
    full = channels.reshape((1,) * (len(order) - channels.ndim) + channels.shape)
    yield from absorber.behind(node, 0, full.transpose(np.argsort(order)))


def _reshape(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    yield from absorber.behind(node, 0, absorber.reshaped(node, channels))


def _sum(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    for index in range(2):
        yield from absorber.behind(node, index, channels)


def _product(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    """One of the operands: a constant with an entry a channel, else what a variable comes from.

    A constant without one stays: ONNX Runtime knows Gelu and the like by their scalars.
    """
    refusal = RefusalError(f"{node.op} '{node.name}' has no operand with one entry for each channel")
    operands = (0, 1) if node.op == "Mul" else (0,)
    for index in (1, 0):
        constant = node.inputs[index]
        if isinstance(constant, gs.Constant) and covers(constant, channels.shape):
            yield absorber.target(node, index, channels, divides=index not in operands)
            return
    for index in operands:
        if isinstance(node.inputs[index], gs.Constant):
            continue
        try:
            found = absorber.behind(node, index, channels)
        except RefusalError as error:
            refusal = error
        else:
            yield from found
            return
    raise refusal


def _matmul(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    left, right = node.inputs
    if isinstance(right, gs.Constant) and len(right.shape) == 2:
        yield absorber.target(node, 1, _last_axis(node, channels, right.shape[1]))
    elif isinstance(left, gs.Constant) and len(left.shape) == 2 and channels.shape == (left.shape[0], 1):
        yield absorber.target(node, 0, channels)
    elif isinstance(left, gs.Constant) or isinstance(right, gs.Constant):
        raise RefusalError(f"the weight of MatMul '{node.name}' is a stack of matrices")
    else:
        rows = channels.ndim > 1 and channels.shape[-2] > 1
        if rows and channels.shape[-1] > 1:
            raise RefusalError(f"the factors lie along rows and columns of MatMul '{node.name}'")
        yield from absorber.behind(node, 0 if rows else 1, channels)


def _gemm(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    transposed = bool(node.attrs.get("transB", 0))
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        raise RefusalError(f"Gemm '{node.name}' has no constant weight")
    found = _last_axis(node, channels, weight.shape[0 if transposed else 1])
    yield absorber.target(node, 1, found.reshape(-1, 1) if transposed else found)
    yield from _bias(absorber, node, found)


def _conv(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    found = absorber.first_axis(node, channels)
    axis = 0 if node.op == "Conv" else 1
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant) or weight.shape[axis] != found.size:  # or several groups of ConvTranspose
        raise RefusalError(f"{node.op} '{node.name}' has no constant weight with a row for each channel")
    yield absorber.target(node, 1, found.reshape(-1, *[1] * (len(weight.shape) - 1 - axis)))
    yield from _bias(absorber, node, found)


def _bias(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    if len(node.inputs) > 2 and node.inputs[2].name:
        yield absorber.target(node, 2, channels)


def _norm(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    """Scale and shift, along the last axes."""
    scale = node.inputs[1]
    if not isinstance(scale, gs.Constant) or not covers(scale, channels.shape):
        raise RefusalError(f"{node.op} '{node.name}' has no constant scale for each channel")
    yield absorber.target(node, 1, channels)
    yield from _bias(absorber, node, channels)


def _channel_norm(absorber: Absorber, node: gs.Node, channels: Channels) -> Iterator[Target]:
    """Scale and shift, along axis 1."""
    found = absorber.first_axis(node, channels)
    if node.attrs.get("training_mode") or tuple(node.inputs[1].shape or ()) != found.shape:
        raise RefusalError(f"{node.op} '{node.name}' has no constant scale for each channel")
    yield absorber.target(node, 1, found)
    yield from _bias(absorber, node, found)


_Rule = Callable[[Absorber, gs.Node, Channels], Iterator[Target]]

_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_SAME, _pass_on),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_MOVES, _reshape),
    "Transpose": _transpose,
    "Add": _sum,
    "Sub": _sum,
    "Mul": _product,
    "Div": _product,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "LayerNormalization": _norm,
    "RMSNormalization": _norm,
    "BatchNormalization": _channel_norm,
    "InstanceNormalization": _channel_norm,
}
