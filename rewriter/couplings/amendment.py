"""What changes in a node once units are gone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.ledger import IntArray, Place
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.weights import Array, read


class Amendment:
    """What changes in one node once units are gone, besides the constants that are sliced anyway.

    Attributes:
        node: the node.
        model: it stands in.
        graph: of the model, the main one or a subgraph.
    """

    def __init__(self, node: gs.Node, model: Model, graph: gs.Graph, plan: Plan) -> None:
        self.node, self.model, self.graph = node, model, graph
        self._plan = plan

    @property
    def shapes(self) -> Shapes:
        """Of all tensors, before."""
        return self._plan.shapes

    def kept(self, place: Place) -> IntArray | None:
        """Indices of the old axis that stay, ascending; None: it is untouched."""
        return self._plan.kept(place)

    def was(self, place: Place) -> int | None:
        """Size before; None where it is not fixed."""
        return self._plan.was(place)

    def size(self, place: Place) -> int | None:
        """Size from now on; None where it is not fixed."""
        kept = self.kept(place)
        return self.was(place) if kept is None else len(kept)

    def value(self, tensor: gs.Tensor | None) -> Array | None:
        """The array of a constant, as it was, that no caller can override; None of anything else."""
        return constant_value(self.model, tensor)


@dataclass(slots=True)
class Plan:
    """Which elements stay, of every axis from which some go.

    Attributes:
        axes: by identity of the tensor, and axis: the tensor, its old size, the indices that stay.
        shapes: before.
    """

    axes: dict[tuple[int, int], tuple[gs.Tensor, int, IntArray]]
    shapes: Shapes

    @property
    def tensors(self) -> set[int]:
        """Identities of the tensors that lose elements."""
        return {tensor for tensor, _ in self.axes}

    def kept(self, place: Place) -> IntArray | None:
        """Indices that stay, None of an untouched axis."""
        entry = self.axes.get((id(place[0]), self._axis(place)))
        return None if entry is None else entry[2]

    def was(self, place: Place) -> int | None:
        """Size before."""
        entry = self.axes.get((id(place[0]), self._axis(place)))
        if entry is not None:
            return entry[1]
        shape = self.shapes.shape(place[0])
        size = None if shape is None else shape[place[1]]
        return size if isinstance(size, int) else None

    def _axis(self, place: Place) -> int:
        shape = self.shapes.shape(place[0])
        return place[1] if shape is None or place[1] >= 0 else place[1] + len(shape)


def constant_value(model: Model, tensor: gs.Tensor | None) -> Array | None:
    """The array of an initializer that no caller can override, or of a Constant node; None of anything else."""
    if isinstance(tensor, gs.Variable) and len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        tensor = tensor.inputs[0].attrs.get("value")
    if not isinstance(tensor, gs.Constant) or any(each is tensor for each in model.graph.inputs):
        return None
    return read(tensor)
