"""Weights as codes and books, by channels or by sub-vectors: whichever takes least, where any saves something."""

from __future__ import annotations

from typing import TypeAlias

import onnx_graphsurgeon as gs

from onnxpress.passes.encode import channels, stages, vectors
from onnxpress.passes.encode.channels import Channels
from onnxpress.passes.encode.estimates import plain_bytes
from onnxpress.passes.encode.stages import Stages
from onnxpress.passes.encode.vectors import Vectors
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.staged import Staged
from onnxpress.rewriter.edits import redirect
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Values

Split: TypeAlias = Channels | Vectors | Stages

_WORTH = 0.985
"""Part of the bytes of the weight as it is that it may take at most."""


def split(weight: Array, values: Values | None = None) -> Split | None:
    """The codes and books that take least; None where no way saves anything.

    Args:
        weight: of 8 to 64 bits an element.
        values: what it was read from, which may know more of it than the elements tell.
    """
    most = _WORTH * plain_bytes(weight)
    known = stages.find(values, weight) if isinstance(values, Staged) else None
    found = [each for each in (channels.find(weight), vectors.find(weight, most), known) if each is not None]
    best = min(found, key=lambda each: each.nbytes, default=None)
    return best if best is not None and best.nbytes < most else None


def write(
    model: Model, graph: gs.Graph, constant: gs.Constant, parts: Split, name: str
) -> tuple[gs.Variable, list[gs.Constant]]:
    """Let nodes compute a constant from codes.

    Args:
        model: takes the nodes and their functions.
        graph: holds the constant.
        constant: is replaced for all its readers.
        parts: what it was taken apart into.
        name: of what the nodes give.

    Returns:
        What takes the place of the constant, and the codes.
    """
    if isinstance(parts, Channels):
        weight, codes = channels.write(model, parts, name)
    elif isinstance(parts, Stages):
        weight, codes = stages.write(model, parts, name)
    else:
        weight, codes = vectors.write(model, parts, name)
    redirect(model, graph, constant, weight)
    return weight, codes
