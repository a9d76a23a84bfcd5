"""Activations that exporters write out become the one operator they are.

        clip(x + b, 0, c) / c = HardSigmoid(x; alpha = 1/c, beta = b/c)
    y * clip(x + b, 0, c) / c = y * HardSigmoid(x; …)

The second with y = x is HardSwish (Howard et al., MobileNetV3, 2019), which ONNX Runtime too computes as a product.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import add_node, output_ids, redirect, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import values_of


def name_activations(model: Model, shapes: Shapes) -> Outcome:
    """Add, Clip and Div (or Mul) that make a HardSigmoid -> HardSigmoid."""
    outcome = Outcome()
    public = output_ids(model)
    for graph in graphs(model.graph):
        inside = {id(node) for node in graph.nodes}
        for node in list(graph.nodes):
            slope = _slope(node)
            # ONNX Runtime computes HardSigmoid in float32, and float16 by way of it; no other type
            if slope is None or shapes.dtype(node.inputs[0]) not in (np.float32, np.float16):
                continue
            product = _only_source(node, 0, "Mul", public)
            if product is not None and id(product) not in inside:
                continue  # it belongs to an outer graph, which cannot read what this one computes
            places = [(node, 0)] if product is None else [(product, 0), (product, 1)]
            for outer, index in places:
                if (found := _hard_sigmoid(outer, index, slope, public)) is None:
                    continue
                x, beta = found
                attrs: dict[str, object] = {"alpha": slope, "beta": beta}
                new = add_node(model, graph, "HardSigmoid", [x], hint=f"{node.name or node.op}_hard", attrs=attrs)
                if product is not None:
                    set_input(product, index, new)
                    new = product.outputs[0]
                redirect(model, graph, node.outputs[0], new)
                outcome.counts["written-out HardSigmoid became one node"] += 1
                break
    return outcome


def _slope(node: gs.Node) -> float | None:
    """What `node` multiplies by, if it is a product or quotient with one constant number."""
    if node.op not in ("Div", "Mul") or not (number := _constant(node, 1)):
        return None
    return 1 / number if node.op == "Div" else number


def _hard_sigmoid(node: gs.Node, index: int, slope: float, public: set[int]) -> tuple[gs.Tensor, float] | None:
    """The x and beta of clip(x + b, 0, 1/slope) * slope, whose clip `node` reads."""
    clip = _only_source(node, index, "Clip", public)
    shifted = _only_source(clip, 0, "Add", public) if clip else None
    if clip is None or shifted is None or (shift := _constant(shifted, 1)) is None:
        return None
    low, high = _bounds(clip)
    # rounded constants: 1/6 in float32 times 6 is not quite 1
    if low != 0 or high is None or not np.isclose(high * slope, 1, rtol=1e-6, atol=0):
        return None
    return shifted.inputs[0], shift * slope


def _only_source(node: gs.Node, index: int, op: str, public: set[int]) -> gs.Node | None:
    """The node of that op which `node` alone reads, at `index`."""
    x = node.inputs[index]
    fits = len(x.inputs) == 1 and x.inputs[0].op == op and len(x.outputs) == 1 and id(x) not in public
    return x.inputs[0] if fits else None


def _constant(node: gs.Node, index: int) -> float | None:
    """The value of an input that is one constant number."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    if not isinstance(tensor, gs.Constant) or values_of(tensor).shape not in ((), (1,)):
        return None
    return float(values_of(tensor).load().reshape(()))


def _bounds(clip: gs.Node) -> tuple[float | None, float | None]:
    if "min" in clip.attrs or "max" in clip.attrs:  # before opset 11
        return clip.attrs.get("min"), clip.attrs.get("max")
    return _constant(clip, 1), _constant(clip, 2)
