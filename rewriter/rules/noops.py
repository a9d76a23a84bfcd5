"""Nodes that do nothing at inference time go away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import output_ids, redirect
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import numpy_dtype, values_of


def _same_dtype(node: gs.Node, shapes: Shapes) -> bool:
    target = node.attrs.get("to")
    dtype = shapes.dtype(node.inputs[0])
    return isinstance(target, int) and dtype is not None and dtype == numpy_dtype(target)


def _keeps_order(node: gs.Node, shapes: Shapes) -> bool:
    perm = node.attrs.get("perm")
    return isinstance(perm, list) and perm == list(range(len(perm)))


def _pads_nothing(node: gs.Node, shapes: Shapes) -> bool:
    pads = node.inputs[1] if len(node.inputs) > 1 else None
    return isinstance(pads, gs.Constant) and not values_of(pads).load().any()


def _inference_dropout(node: gs.Node, shapes: Shapes) -> bool:
    training = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if isinstance(training, gs.Constant):
        training = None if not values_of(training).load().any() else training
    unused_mask = len(node.outputs) < 2 or not node.outputs[1].outputs
    return training is None and unused_mask


def _same_shape(node: gs.Node, shapes: Shapes) -> bool:
    before, after = shapes.static(node.inputs[0]), shapes.static(node.outputs[0])
    return before is not None and before == after


def _neutral(value: float) -> Callable[[gs.Node, Shapes], bool]:
    """Tell x + 0, x * 1 and the like, where the constant does not broadcast x to another shape or type."""

    def rule(node: gs.Node, shapes: Shapes) -> bool:
        x, constant = node.inputs
        if not isinstance(constant, gs.Constant) or values_of(constant).nbytes > 1 << 16:
            return False
        shape = shapes.shape(x)
        fits = shape is not None and len(constant.shape) <= len(shape)
        return fits and all(s == 1 for s in constant.shape) and bool(np.all(values_of(constant).load() == value))

    return rule


# op -> when its first output is its first input
_RULES: dict[str, Callable[[gs.Node, Shapes], bool]] = {
    "Identity": lambda node, shapes: True,
    "Cast": _same_dtype,
    "Transpose": _keeps_order,
    "Pad": _pads_nothing,
    "Dropout": _inference_dropout,
    "Concat": lambda node, shapes: len(node.inputs) == 1,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Add": _neutral(0.0),
    "Sub": _neutral(0.0),
    "Mul": _neutral(1.0),
    "Div": _neutral(1.0),
}


def remove_noops(model: Model, shapes: Shapes) -> Outcome:
    """Let the readers of a node that does nothing read its input."""
    outcome = Outcome()
    public = output_ids(model) | {id(t) for graph in graphs(model.graph) for t in graph.inputs}
    for graph in graphs(model.graph):
        own = {id(t) for node in graph.nodes for t in node.outputs}
        for node in list(graph.nodes):
            rule = _RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
            if rule is None or not node.outputs or not node.inputs or not rule(node, shapes):
                continue
            x, y = node.inputs[0], node.outputs[0]
            # an output of the model needs a node that writes it, and only one
            if id(y) in public and (id(x) in public or id(x) not in own):
                continue
            redirect(model, graph, y, x)
            outcome.counts[f"{node.op} nodes that did nothing removed"] += 1
    return outcome
