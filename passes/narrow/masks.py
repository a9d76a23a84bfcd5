"""Additive masks: numbers far below all others, which Softmax turns into zeros whatever they are exactly.

A mask of −3.4e38 has no place in float16, and is −∞ in bfloat16, which times zero is NaN. An eighth of the
most negative number it holds does the same: exp(x − 8,188) is zero in any precision, and a few masks may be added.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import pieces
from onnxpress.passes.kernels.narrow import Format
from onnxpress.passes.narrow.types import is_standard
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import read, values_of

_CARRIERS = frozenset({"Add", "Sub", "Mul", "Where", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose"}) | {
    "Slice",
    "Tile",
    "Gather",
    "Concat",
    "Identity",
    "Flatten",
}
"""What a mask goes through before Softmax reads it."""


def bound_masks(model: Model, kind: Format, report: Report, *, least: int = 0) -> None:
    """Raise the entries of masks that lie below what the format holds, and say so.

    Args:
        model: is changed.
        kind: the format.
        report: is told.
        least: bytes below which a constant is left alone.
    """
    outputs = output_ids(model)
    fixed = outputs | {id(t) for graph in graphs(model.graph) for t in graph.inputs}
    for graph in graphs(model.graph):
        for constant in model.constants() if graph is model.graph else list(graph.constants):
            values = values_of(constant)
            if values.dtype != np.float32 or values.nbytes < least or id(constant) in fixed or not constant.outputs:
                continue
            if (lowest := _least(constant, kind)) is None or not _ends_in_softmax(constant, outputs):
                continue
            floor = np.float32(-kind.largest / 8)
            array = read(constant)
            model.replace_weight(constant, np.where(np.isfinite(array), np.maximum(array, floor), array))
            report.change(constant.name, f"mask of {lowest:.3g} became {floor:.6g}: Softmax makes zeros of both")


def _least(constant: gs.Constant, kind: Format) -> float | None:
    """The least finite entry, where it lies below what a format holds and no entry above; else None."""
    least = 0.0
    for piece in pieces(read(constant)):
        finite = piece[np.isfinite(piece)]
        if finite.size and float(finite.max()) > kind.largest:
            return None
        least = min(least, float(finite.min(initial=0.0)))
    return least if least < -kind.largest else None


def _ends_in_softmax(constant: gs.Constant, outputs: set[int]) -> bool:
    """Whether all that is made of a constant is read by Softmax in the end."""
    waiting: list[gs.Tensor] = [constant]
    seen = {id(constant)}
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in outputs or not tensor.outputs:
            return False
        for node in tensor.outputs:
            if not is_standard(node) or node.op not in {*_CARRIERS, "Softmax"}:
                return False
            if node.op != "Softmax" and id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                waiting.append(node.outputs[0])
    return True
