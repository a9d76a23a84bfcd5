"""Where 16 bits do harm: operators, constants and places that compute in float32, with the reason of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.narrow import Format
from onnxpress.passes.narrow.types import is_standard
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.weights import read, values_of

LONG = 1024
"""Numbers that may be summed in 16 bits: rounding each partial sum loses about half of the digits then."""

_WHOLE = "it counts, and {low} tells whole numbers apart only up to {whole:,}"
_PLACES = "it works on positions, which {low} tells apart only up to {whole:,}"
_STEEP = "it makes a small relative error of what it reads a large one"
_SUM = "it sums {many}, which may exceed {low} or lose its digits"
_CODES = "it belongs to a quantized layer, whose scales are float32"

OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(["Range", "CumSum", "CumProd", "Mod", "BitShift", "Unique"], _WHOLE),
        **dict.fromkeys(["RoiAlign", "MaxRoiPool", "NonMaxSuppression", "AffineGrid", "GridSample"], _PLACES),
        **dict.fromkeys(["DeformConv", "CenterCropPad", "Upsample"], _PLACES),
        **dict.fromkeys(["Exp", "Pow", "Tan", "Sinh", "Cosh", "Atanh", "Acosh"], _STEEP),
        **dict.fromkeys(["DFT", "STFT", "MelWeightMatrix", "Det"], _STEEP),
        **dict.fromkeys(["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"], _CODES),
        **dict.fromkeys(["CastLike"], "its type is that of another tensor"),
    }
)
"""Operators that always compute in float32."""

_REDUCTIONS = (
    frozenset({"ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum"})
    | {"ReduceLogSumExp", "ReduceProd", "InstanceNormalization", "LpNormalization"}
    | {"MeanVarianceNormalization"}
)

ADDING = frozenset(["Add", "Sub", "Max", "Clip"])
"""Operators by which an epsilon keeps a divisor from being zero."""

_NORMALISING = frozenset(["Expand", "Max", "Clip", "Sqrt", "Reciprocal", "Pow", "Log", "Div", "Mul"])
_SPREAD = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Mul", "Sub", "Sqrt", "Abs"}) | {
    "Max",
    "Div",
}


def reason(node: gs.Node, kind: Format, shapes: Shapes) -> str | None:
    """Why a node computes in float32; None where 16 bits do."""
    words = {"low": kind.name, "whole": 2**kind.digits}
    if is_standard(node):
        if node.op in OPERATORS:
            return OPERATORS[node.op].format(**words)
        if node.op in _REDUCTIONS and (many := _summed(node, shapes)) is not None:
            return _SUM.format(many=many, **words)
    if _between_codes(node):
        return _CODES
    epsilon = node.attrs.get("epsilon")
    if isinstance(epsilon, float) and epsilon > 0 and vanishes(epsilon, kind):
        return f"its epsilon {epsilon:.2g} is zero in {kind.name}"
    return None


def vanishes(number: float, kind: Format) -> bool:
    """Whether a number is lost in 16 bits: it becomes zero, infinite, or keeps few of its digits."""
    if not np.isfinite(number) or number == 0:
        return False
    with np.errstate(over="ignore"):
        rounded = float(np.float32(number).astype(kind.dtype))
    return not abs(rounded - number) <= 4 * kind.rounding * abs(number)


def lost_constant(node: gs.Node, kind: Format) -> str | None:
    """The reason for a node that reads a single number which is lost in 16 bits: an epsilon, or one too large.

    A small number that is added is missed only where a root, a logarithm or a division follows.
    """
    for tensor in node.inputs:
        if not isinstance(tensor, gs.Constant):
            continue
        values = values_of(tensor)
        if values.dtype != np.float32 or values.nbytes != values.dtype.itemsize:
            continue
        number = float(read(tensor).reshape(-1)[0])
        added = is_standard(node) and node.op in ADDING and abs(number) < 1
        if vanishes(number, kind) and (not added or _is_divisor(node)):
            return f"its constant {number:.3g} is lost in {kind.name}"
    return None


def _is_divisor(node: gs.Node) -> bool:
    """Whether what a node gives is soon divided by, or its root or logarithm is taken."""
    waiting = [(node.outputs[0], 0)]
    while waiting:
        tensor, depth = waiting.pop()
        for reader in tensor.outputs:
            if not is_standard(reader):
                continue
            if reader.op in ("Sqrt", "Reciprocal", "Pow", "Log") or (reader.op == "Div" and reader.inputs[1] is tensor):
                return True
            if depth < 3 and reader.op in ("Expand", "Reshape", "Unsqueeze", "Squeeze", "Max", "Clip", "Identity"):
                waiting.append((reader.outputs[0], depth + 1))
    return False


def normalisation_of(node: gs.Node) -> Iterator[gs.Node]:
    """The nodes of a written-out normalisation around the one that adds an epsilon.

    Behind it up to the division, whose divisor may be as small as the epsilon's root; before it those that compute the
    variance or the norm.
    """
    tensor = node.outputs[0]
    for _ in range(6):
        readers = {id(each): each for each in tensor.outputs}
        found = [each for each in readers.values() if is_standard(each) and each.op in _NORMALISING]
        yield from found
        following = [each for each in found if each.op not in ("Div", "Mul")]
        if not following:
            break
        tensor = following[0].outputs[0]
    waiting = [(tensor, 0) for tensor in node.inputs]
    while waiting:
        tensor, depth = waiting.pop()
        for source in tensor.inputs:
            if is_standard(source) and source.op in _SPREAD and depth < 5:
                yield source
                waiting.extend((each, depth + 1) for each in source.inputs)


def _summed(node: gs.Node, shapes: Shapes) -> str | None:
    """How many numbers a reduction sums, where they may be too many; None where they are few."""
    shape = shapes.shape(node.inputs[0])
    if shape is None:
        return "an unknown number of values"
    axes = _axes(node, len(shape))
    if axes is None:
        return "along axes that are computed"
    sizes = [shape[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        return "along an axis of any length"
    count = int(np.prod(known, dtype=np.int64))
    return f"{count:,} values" if count > LONG else None


def _axes(node: gs.Node, rank: int) -> list[int] | None:
    """The axes a reduction sums along; None where they are not constant."""
    if not node.op.startswith("Reduce"):
        return [int(node.attrs.get("axis", -1)) % rank] if node.op == "LpNormalization" else list(range(2, rank))
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1 and node.inputs[1].name:
        if not isinstance(node.inputs[1], gs.Constant):
            return None
        axes = read(node.inputs[1]).tolist()
    if not axes:
        return [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    return [int(axis) % rank for axis in axes] if rank else []


def _between_codes(node: gs.Node) -> bool:
    """Whether a node reads what comes from codes, or writes what becomes codes."""
    before = any(source.op == "DequantizeLinear" for t in node.inputs for source in t.inputs)
    return before or any(reader.op == "QuantizeLinear" for t in node.outputs for reader in t.outputs)


_ELEMENTWISE = (
    frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log"})
    | {"Min", "Max", "Clip", "Where", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Gather"}
    | {"Slice", "Concat", "Identity", "Transpose", "Expand", "Tile", "Split", "Sum", "Cast"}
    | {"ReduceMax", "ReduceMin", "Relu"}
)


def counted(node: gs.Node, shapes: Shapes) -> Iterator[gs.Node]:
    """The elementwise nodes behind a Cast to whole numbers: they compute a size, a place or a number of things."""
    waiting, seen = [node], {id(node)}
    while waiting:
        for tensor in waiting.pop().inputs:
            for source in tensor.inputs:
                known = is_standard(source) and source.op in _ELEMENTWISE and shapes.dtype(tensor) == np.float32
                if known and id(source) not in seen:
                    seen.add(id(source))
                    yield source
                    waiting.append(source)


def makes_whole(node: gs.Node, shapes: Shapes) -> bool:
    """Whether a node turns float32 into whole numbers."""
    if not is_standard(node) or node.op != "Cast" or shapes.dtype(node.inputs[0]) != np.float32:
        return False
    dtype = shapes.dtype(node.outputs[0])
    return dtype is not None and dtype.kind in "iu"
