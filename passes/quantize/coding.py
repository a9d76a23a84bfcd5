"""Weights as 8-bit codes: which scales, how good, and how they are read back in the graph.

Codes are read back in one of two ways. DequantizeLinear, which ONNX Runtime merges with the layer that reads it into
one that computes on codes. Or, where the layer computes in float, a local function, which ONNX Runtime runs once when
it loads the model; a DequantizeLinear would run every time, and keep the layer from the faster layouts of constant
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.affine import (
    INT7_SYMMETRIC,
    INT8_SYMMETRIC,
    Floats,
    Grid,
    Ints,
    dequantize,
    largest_magnitude,
    quantize,
    symmetric_scale,
)
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.selection import LAZY, RefusalError
from onnxpress.rewriter.edits import add_node, detach
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import Dense, Produced, Values, values_of

UINT8_SYMMETRIC = Grid(1, 255, np.dtype(np.uint8))
"""INT8_SYMMETRIC about 128."""

OVERHEAD = 96
"""Bytes that the nodes, names and headers around the codes of one weight take in a file."""

_FUNCTION = "dequantize"


@dataclass(frozen=True, slots=True)
class WeightCodes:
    """Which codes a weight has: w ≈ s · (code − zero), alike on both sides of zero.

    Attributes:
        name: of the type and its width.
        signed: the grid about zero, which gives the scale.
        grid: of the codes.
        zero: the code of 0.
    """

    name: str
    signed: Grid
    grid: Grid
    zero: int = 0


WEIGHT_CODES: Mapping[str, WeightCodes] = {
    each.name: each
    for each in (
        WeightCodes("int8", INT8_SYMMETRIC, INT8_SYMMETRIC),
        WeightCodes("int7", INT7_SYMMETRIC, INT7_SYMMETRIC),
        WeightCodes("uint8", INT8_SYMMETRIC, UINT8_SYMMETRIC, 128),
    )
}
"""Codes of weights by name; int7 and uint8 are for CPUs on which products of 8 bits saturate."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A weight as codes.

    Attributes:
        codes: int8 or uint8, of the shape of the weight.
        scale: float32 [channels], or [] for the whole tensor.
        axis: of the channels; None for the whole tensor.
        error: ‖W − W'‖ / ‖W‖.
        zero: the code of 0.
    """

    codes: gs.Constant
    scale: Floats
    axis: int | None
    error: float
    zero: int = 0

    @property
    def zeros(self) -> Ints:
        """Zero points, one for each scale."""
        return np.full(self.scale.shape, self.zero, values_of(self.codes).dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return int(values_of(self.codes).nbytes + self.scale.nbytes)


def weight_grid(*, narrow: bool) -> Grid:
    """Codes of weights: 7 bits where products of 8 would saturate."""
    return INT7_SYMMETRIC if narrow else INT8_SYMMETRIC


def channel_axis(use: Use) -> int | None:
    """The axis along which a node can have one scale a channel; None where it has none.

    An embedding has one scale a row, since a row is what is read.

    Raises:
        RefusalError: there are several such axes.
    """
    meaning = "in" if use.node.op == "Gather" else "out"
    found = [index for index, axis in enumerate(use.axes) if axis == meaning]
    if len(found) > 1:
        raise RefusalError("its output channels lie along several axes")
    return found[0] if found else None


def common_axis(site: Site) -> int | None:
    """The axis of the scales that suits all users of a weight.

    Raises:
        RefusalError: they need different ones.
    """
    axes = {channel_axis(use) for use in site.uses}
    if len(axes) > 1:
        raise RefusalError("it is shared by layers whose output channels lie along different axes")
    return axes.pop()


def weight_scale(site: Site, *, axis: int | None, grid: Grid) -> Floats:
    """The scales at which the largest weight of each channel has the greatest code.

    Raises:
        RefusalError: the weight holds NaN or infinities.
    """
    try:
        return symmetric_scale(largest_magnitude(site.array(), axis=axis), grid)
    except ValueError as error:
        raise RefusalError("its weight holds NaN or infinities; train or export it again") from error


def code(
    model: Model,
    site: Site,
    scale: Floats,
    *,
    axis: int | None,
    grid: Grid,
    zero: int = 0,
    chosen: Values | None = None,
) -> Coded:
    """Turn the weight of a site into codes, the nearest or chosen ones; those of a large one are not held in memory."""
    old = values_of(site.weight)
    codes = quantize(old.load(), scale, zero, grid=grid, axis=axis) if chosen is None else chosen.load()
    error = relative_error(old.load(), dequantize(codes, scale, zero, axis=axis))
    held: Values = chosen or Dense(codes)
    if chosen is None and old.nbytes >= LAZY:
        held = Produced(old.shape, grid.dtype, lambda: quantize(old.load(), scale, zero, grid=grid, axis=axis))
    return Coded(model.add_weight("w", held), np.asarray(scale), axis, error, zero)


def saving(site: Site, *, axis: int | None) -> int:
    """Bytes that a file gets smaller by if a weight becomes codes."""
    channels = 1 if axis is None else site.shape[axis]
    return site.nbytes - site.size - 4 * channels - OVERHEAD


def decoded(model: Model, graph: gs.Graph, coded: Coded) -> gs.Tensor:
    """The weight in float again, computed once when the model is loaded."""
    rank = len(coded.codes.shape)
    shape = () if coded.axis is None else tuple(-1 if i == coded.axis else 1 for i in range(rank))
    scale = model.add_weight("s", coded.scale.reshape(shape))
    _add_function(model)
    return add_node(model, graph, _FUNCTION, [coded.codes, scale], hint="d", domain=DECODING_DOMAIN)


def looked_up(model: Model, use: Use, coded: Coded) -> None:
    """Let a Gather pick rows of codes, and scale only those; the table stays codes in memory, too.

    y = float(codes[i]) · scale[i]
    """
    node, graph = use.node, use.graph
    indices, out = node.inputs[1], node.outputs[0]
    column = coded.scale.reshape(-1, 1) if coded.axis is not None else None
    rows = add_node(model, graph, "Gather", [coded.codes, indices], hint="g")
    wide = add_node(model, graph, "Cast", [rows], hint="c", attrs={"to": int(onnx.TensorProto.FLOAT)})
    if column is None:
        scale: gs.Tensor = model.add_weight("s", coded.scale)
    else:
        scale = add_node(model, graph, "Gather", [model.add_weight("s", column), indices], hint="g")
    detach(node)
    add_node(model, graph, "Mul", [wide, scale], hint="m", outputs=[out])


def _add_function(model: Model) -> None:
    """Let the model call the function: y = float(codes) · scale."""
    model.import_domain(DECODING_DOMAIN, 1)
    model.header.ir_version = max(model.header.ir_version, 8)  # the first with functions
    if any(each.domain == DECODING_DOMAIN and each.name == _FUNCTION for each in model.functions):
        return
    cast = onnx.helper.make_node("Cast", ["c"], ["f"], to=onnx.TensorProto.FLOAT)
    product = onnx.helper.make_node("Mul", ["f", "s"], ["y"])
    opsets = [onnx.helper.make_opsetid("", model.opset)]
    model.functions.append(
        onnx.helper.make_function(DECODING_DOMAIN, _FUNCTION, ["c", "s"], ["y"], [cast, product], opsets)
    )


def bias_of(node: gs.Node) -> gs.Constant | None:
    """The bias of a Conv or Gemm, None where there is none."""
    bias = node.inputs[2] if node.op != "MatMul" and len(node.inputs) > 2 else None
    return bias if isinstance(bias, gs.Constant) else None


def flat(constant: gs.Constant) -> Floats:
    """A constant as one float32 row."""
    return np.asarray(values_of(constant).load(), np.float32).reshape(-1)
