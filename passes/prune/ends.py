"""Where the outputs of a model are judged: before a Softmax or Sigmoid, behind which a sure answer hides noise."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxpress.rewriter.model import Model

_BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "ArgMax", "Identity")
"""Last nodes before which noise is measured: behind them a sure answer hides it."""


@dataclass(frozen=True, slots=True)
class End:
    """Where noise is measured for one output.

    Attributes:
        name: of the tensor.
        depth: nodes that lie between it and the output.
        axis: along which a mean makes no difference.
    """

    name: str
    depth: int
    axis: int | None


def find_end(model: Model, output: gs.Tensor) -> End:
    """Go back from an output to what is judged."""
    tensor, depth, axis = output, 0, None
    while isinstance(tensor, gs.Variable) and tensor.inputs and tensor.inputs[0].op in _BOUNDED:
        node = tensor.inputs[0]
        if node.op in ("Softmax", "LogSoftmax"):
            axis = int(node.attrs.get("axis", -1 if model.opset >= 13 else 1))
        tensor, depth = node.inputs[0], depth + 1
    return End(str(tensor.name), depth, axis)


def expose(model: Model, output: gs.Tensor, depth: int) -> str:
    """Make the tensor some nodes before an output one, too; gives its name."""
    tensor = output
    for _ in range(depth):
        tensor = tensor.inputs[0].inputs[0]
    if all(each is not tensor for each in model.graph.outputs):
        model.graph.outputs.append(tensor)
    return str(tensor.name)
