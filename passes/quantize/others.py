"""Weights that no pass of this family turns into codes, and why: nothing is left out in silence."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from onnxpress.passes.report import Report
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import FLOATS, find_sites
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import values_of

LEAST = 1024
"""Elements from which a constant is worth a word."""

_RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")


def note_others(model: Model, report: Report) -> None:
    """Skip, with the reason, every large float constant of two axes or more that is no site's weight."""
    told = {id(site.weight) for site in find_sites(model)}
    overridable = {id(tensor) for tensor in model.graph.inputs}
    for _, node in nodes(model.graph):
        for index, tensor in enumerate(node.inputs):
            if not isinstance(tensor, gs.Constant) or id(tensor) in told or not _is_weight(node, index, tensor):
                continue
            told.add(id(tensor))
            name = values_of(tensor).dtype.name
            why = f"{node.op} reads it, which has no form on codes" if id(tensor) not in overridable else _OVERRIDDEN
            report.skip(tensor.name, f"stays {name}: {why}")


_OVERRIDDEN = "it is an input of the model, too, and a caller may give another; drop that input to quantize it"


def fused_form(node: gs.Node) -> str | None:
    """Why a node that ONNX Runtime's own optimizer made stays float; None for all others."""
    if node.domain != "com.microsoft":
        return None
    return f"{node.op} is a form that ONNX Runtime's optimizer made; quantize the model as it was before that"


def _is_weight(node: gs.Node, index: int, tensor: gs.Constant) -> bool:
    values = values_of(tensor)
    if values.dtype.name not in FLOATS or len(values.shape) < 2 or math.prod(values.shape) < LEAST:
        return False
    return node.op not in _RECURRENT or index in (1, 2)  # the others are biases and states
