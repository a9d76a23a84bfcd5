"""Decoding nodes: where they are, and a model that holds nothing else, for ONNX Runtime to decode weights."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.evaluate import constant_model
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import Skeleton

BATCH = 1 << 26
"""Bytes of decoded weights held at a time, unless a single one is larger."""


def is_decoding(node: gs.Node) -> bool:
    """Whether a node calls one of the functions that decode weights."""
    return bool(node.domain == DECODING_DOMAIN)


def decoded_weights(model: Model) -> list[gs.Variable]:
    """What decoding nodes give to the rest of the model, in graph order."""
    found = [t for node in model.graph.nodes if is_decoding(node) for t in node.outputs]
    return [t for t in found if any(not is_decoding(reader) for reader in t.outputs)]


def extract(model: Model, weights: Sequence[gs.Variable]) -> Skeleton:
    """A model without inputs whose outputs are `weights`; what is stored on disk stays there.

    Raises:
        ModelError: a decoding node depends on something that is not constant, or its function is missing.
    """
    nodes = _nodes_behind(weights)
    functions = [f for f in model.functions if f.domain == DECODING_DOMAIN]
    if missing := sorted({str(node.op) for node in nodes} - {f.name for f in functions}):
        raise ModelError(f"the functions that decode the weights are not in the model: {', '.join(missing)}")
    return constant_model(model, nodes, weights, functions=functions)


def _nodes_behind(weights: Sequence[gs.Variable]) -> list[gs.Node]:
    """The decoding nodes that `weights` depend on, each after those it reads from."""
    order: list[gs.Node] = []
    seen: set[int] = set()

    def visit(tensor: gs.Tensor) -> None:
        if isinstance(tensor, gs.Constant):
            return
        if not tensor.inputs or not is_decoding(tensor.inputs[0]):
            raise ModelError(f"'{tensor.name}' is read by a decoding node, but is not constant")
        node = tensor.inputs[0]
        if id(node) in seen:
            return
        seen.add(id(node))
        for each in node.inputs:
            visit(each)
        order.append(node)

    for weight in weights:
        visit(weight)
    return order
