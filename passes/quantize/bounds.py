"""Values that those who read them do not tell apart need no codes of their own.

HardSwish(x) = x · max(0, min(1, αx + β)) is zero wherever x ≤ −β/α, so the codes of an x that is read for nothing else
need not reach further down, and get finer for it. Likewise x · sigmoid(x), which is within 5e-4 of zero below −10.

Softmax makes nothing of a score that lies 20 below the greatest of its row: e⁻²⁰ = 2e-9. So a mask of −10000, −3.4e38
or −∞ that is added to scores between l and h is as good at −(20 + h − l), and their sum at l − 20.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.quantize.rules import CPU, is_standard
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import read

VANISHES = 20.0
"""How far below the greatest score of its row softmax makes nothing of a score: e⁻²⁰ = 2e-9."""

MASK = -1000.0
"""What a mask adds at most to a score that is to count for nothing."""

Spans = Mapping[str, tuple[float, float]]
"""The least and the greatest value of tensors, by name."""


def floor_of(tensor: gs.Tensor) -> float:
    """The number below which all values of `tensor` are alike to those who read it; −inf where there is none.

    Known: readers that are one gate g (HardSigmoid with α > 0, or Sigmoid), and the product x · g(x); HardSwish alone.
    """
    readers = {id(node): node for node in tensor.outputs}.values()
    if not readers or not all(is_standard(node) for node in readers):
        return -math.inf
    gates = [node for node in readers if node.op != "Mul"]
    if len(gates) != 1 or len(readers) > 2:
        return -math.inf
    gated = gates[0].outputs[0]
    products = [node for node in readers if node.op == "Mul"]
    if products and {id(t) for t in products[0].inputs} != {id(tensor), id(gated)}:
        return -math.inf
    return _gate_floor(gates[0], multiplied=bool(products))


def _gate_floor(gate: gs.Node, *, multiplied: bool) -> float:
    if gate.op == "HardSwish" and not multiplied:
        return -3.0
    if gate.op == "HardSigmoid" and (slope := float(gate.attrs.get("alpha", 0.2))) > 0:
        return -float(gate.attrs.get("beta", 0.5)) / slope
    return -10.0 if gate.op == "Sigmoid" else -math.inf


def mask_floors(model: Model, spans: Spans) -> dict[str, float]:
    """What lies below which number makes no difference to a softmax, by the name of masks and of masked scores.

    Known: Softmax(Add(scores, mask)), and Softmax(Where(condition, scores, mask)) with either order. What reaches a
    mask through nodes that only move values is bounded like the mask. Tensors that others read, too, are left alone.

    Args:
        model: in float.
        spans: of its tensors; what is not in there has no bound.
    """
    public = output_ids(model)
    floors: dict[str, float] = {}
    masks: dict[str, tuple[gs.Tensor, set[int]]] = {}
    for node in model.graph.nodes:
        if node.op != "Softmax" or not is_standard(node):
            continue
        total = node.inputs[0]
        found = _masked(total, spans)
        if found is None or id(total) in public or len(total.outputs) != 1:
            continue
        mask, (low, high) = found
        floors[total.name] = low - VANISHES
        floors[mask.name] = min(floors.get(mask.name, 0.0), -(VANISHES + high - low))
        masks.setdefault(mask.name, (mask, set()))[1].add(id(total.inputs[0]))
    for mask, readers in masks.values():
        if not {id(node) for node in mask.outputs} <= readers or id(mask) in public:
            del floors[mask.name]
        else:
            floors.update((each.name, floors[mask.name]) for each in _moved(mask, public))
    return floors


def _masked(total: gs.Tensor, spans: Spans) -> tuple[gs.Tensor, tuple[float, float]] | None:
    """The mask in what softmax reads, and the span of the scores; None where there is none."""
    source = total.inputs[0] if len(total.inputs) == 1 else None
    if source is None or source.op not in ("Add", "Where") or not is_standard(source):
        return None
    pair = source.inputs[-2:]
    for mask, scores in (pair, pair[::-1]):
        span, low = _span(scores, spans), _span(mask, spans)
        if span is not None and low is not None and low[0] <= MASK < span[0]:
            return mask, span
    return None


def _span(tensor: gs.Tensor, spans: Spans) -> tuple[float, float] | None:
    if isinstance(tensor, gs.Constant):
        values = read(tensor)
        return (float(np.min(values)), float(np.max(values))) if values.size and values.dtype.kind == "f" else None
    return spans.get(tensor.name)


def _moved(mask: gs.Tensor, public: set[int]) -> Iterator[gs.Tensor]:
    """What becomes the mask by nodes that only move values, and is read by nobody else."""
    while mask.inputs and mask.inputs[0].op in CPU and CPU[mask.inputs[0].op].shares and mask.inputs[0].op != "Concat":
        mask = mask.inputs[0].inputs[0]
        if len(mask.outputs) != 1 or id(mask) in public:
            return
        yield mask
