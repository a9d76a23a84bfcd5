"""Values that those who read them do not tell apart need no codes of their own.

HardSwish(x) = x · max(0, min(1, αx + β)) is zero wherever x ≤ −β/α, so the codes of an x that is read for nothing else
need not reach further down, and get finer for it. Likewise x · sigmoid(x), which is within 5e-4 of zero below −10.
"""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from onnxpress.passes.quantize.placement import is_standard


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
