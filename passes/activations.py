"""The activation that reads what a layer gives: a Relu or one of its kin, or the largest of several pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.intercepts import Intercept, intercept_of
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.asymmetric import Activation, Bent, Largest
from onnxpress.passes.maxout import CUTS, pieces_of
from onnxpress.passes.selection import Layout
from onnxpress.passes.shortcuts import outputs_view
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of


@dataclass(frozen=True, slots=True, eq=False)
class Behind:
    """What reads the outputs of a layer.

    Attributes:
        op: its operator.
        activation: what it makes of them.
        added: whether another activation is added to them first (`passes.shortcuts`).
        intercept: the bias of the layer; None where it has none.
    """

    op: str
    activation: Activation
    added: bool
    intercept: Intercept | None


def activation_behind(model: Model, site: Site) -> Behind | None:
    """What alone reads the outputs of a layer, to which only a bias and one more activation may be added.

    Args:
        model: holds the site.
        site: of any weight.

    Returns:
        None where something else reads them, or the layer gives no plain product.
    """
    if len(site.uses) != 1 or site.uses[0].graph is not model.graph or outputs_view(site.uses[0]) is None:
        return None
    intercept, public = intercept_of(model, site), output_ids(model)
    behind = len(site.uses[0].axes) - 2 if site.op == "Conv" else 0
    axes = (-1 - behind,) if site.op == "MatMul" else (1, -1 - behind)
    channels = _Channels(Layout.of(site).rows, axes, public)
    tensor, added = site.uses[0].node.outputs[0], False
    while id(tensor) not in public and tensor.outputs:
        node = tensor.outputs[0]
        if (node.domain or "") not in DEFAULT_DOMAINS:
            return None
        if node.op != "Add" or len(tensor.outputs) != 1:
            found = channels.read_by(tensor)
            return None if found is None else Behind(*found, added, intercept)
        if intercept is None or node is not intercept.node:
            other = node.inputs[1] if node.inputs[0] is tensor else node.inputs[0]
            if added or isinstance(other, gs.Constant):
                return None
            added = True
        tensor = node.outputs[0]
    return None


@dataclass(frozen=True, slots=True)
class _Channels:
    """The outputs of a layer as an axis of what it gives.

    Attributes:
        count: of them.
        axes: their axis, as operators may name it; the last counts from the end.
        public: tensors that leave the model, by id.
    """

    count: int
    axes: tuple[int, ...]
    public: set[int]

    def read_by(self, tensor: gs.Tensor) -> tuple[str, Activation] | None:
        """What alone reads a tensor: its operator, and what it does."""
        node = tensor.outputs[0]
        if node.op in CUTS:
            pieces = pieces_of(tensor, self.count, self.axes, self.public)
            return None if pieces is None else ("Max", Largest(pieces))
        if len(tensor.outputs) != 1 or node.inputs[0] is not tensor:
            return None
        if node.op == "Relu":
            return "Relu", Bent()
        if node.op == "Clip":
            low, high = _bound(node, 1, "min", -np.inf), _bound(node, 2, "max", np.inf)
            return ("Clip", Bent(low, high)) if low is not None and high is not None and low < high else None
        slope = self._slope(node)
        return None if slope is None or slope.min() < 0 or slope.max() > 1 else (str(node.op), Bent(slope=slope))

    def _slope(self, node: gs.Node) -> Array | None:
        """Of a LeakyRelu or PRelu below zero: one, or one for each output."""
        if node.op == "LeakyRelu":
            return np.array([node.attrs.get("alpha", 0.01)], np.float32)
        given = node.inputs[1] if node.op == "PRelu" else None
        if not isinstance(given, gs.Constant) or given.dtype not in (np.float32, np.float64, np.float16):
            return None
        size, axis = int(np.prod(given.shape)), self.axes[-1]
        each = size == self.count and len(given.shape) >= -axis and given.shape[axis] == size
        return values_of(given).load().reshape(-1).astype(np.float32) if size == 1 or each else None


def _bound(node: gs.Node, index: int, name: str, otherwise: float) -> float | None:
    """Of a Clip; None where it is not known."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    if tensor is None or tensor.is_empty():
        return float(node.attrs.get(name, otherwise))
    if not isinstance(tensor, gs.Constant) or any(size != 1 for size in tensor.shape):
        return None
    return float(values_of(tensor).load().reshape(()))
