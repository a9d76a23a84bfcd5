"""Why a pass that found no site in a model found none."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.walk import nodes

WHOLE = "(the model)"
"""Stands in a report where no site can."""

_ON_CODES = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "MatMulNBits", "DynamicQuantize")
"""How operators begin that compute with codes."""


def why_idle(model: Model) -> str:
    """A reason for the report, with what to do instead where there is something."""
    found = [node for _, node in nodes(model.graph)]
    if any(node.domain == DECODING_DOMAIN for node in found):
        return "its weights are encoded; let this pass run before `encode`, or use `onnxpress decode` first"
    if any(_on_codes(node) for node in found):
        return "its weights are quantized; let this pass run on the float model, before quantization"
    if not find_sites(model):
        return "it has no float weights"
    return "it has nothing of the kind that this pass works on"


def _on_codes(node: gs.Node) -> bool:
    if str(node.op).startswith(_ON_CODES):
        return True
    return node.op == "DequantizeLinear" and bool(node.inputs) and isinstance(node.inputs[0], gs.Constant)
