"""Zeros that a Pad puts around the input of a Conv are the Conv's own to put."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import values_of


def fold_padding(model: Model, shapes: Shapes) -> Outcome:
    """Conv(Pad(x)) -> Conv(x) with wider pads, where the Pad puts zeros around spatial axes alone."""
    outcome = Outcome()
    for graph in graphs(model.graph):
        for node in graph.nodes:
            if node.op != "Conv" or not node.inputs[0].inputs or node.attrs.get("auto_pad", "NOTSET") not in _PLAIN:
                continue
            pad, rank = node.inputs[0].inputs[0], len(node.inputs[1].shape or ())
            around = _zeros_around(pad, rank) if pad.op == "Pad" and rank else None
            if around is None:
                continue
            own = node.attrs.get("pads") or [0] * len(around)
            node.attrs["pads"] = [a + b for a, b in zip(own, around, strict=True)]
            node.attrs["auto_pad"] = "NOTSET"
            set_input(node, 0, pad.inputs[0])
            outcome.counts["Pad nodes folded into Conv"] += 1
    return outcome


_PLAIN = ("NOTSET", "VALID")


def _zeros_around(pad: gs.Node, rank: int) -> list[int] | None:
    """Spatial pads, begins before ends, of a Pad that puts zeros there and nothing elsewhere."""
    if pad.attrs.get("mode", "constant") != "constant" or any(t.name for t in pad.inputs[3:]):
        return None
    amounts = pad.attrs.get("pads") or _numbers(pad, 1)
    value = pad.attrs.get("value", 0) if len(pad.inputs) < 3 or not pad.inputs[2].name else _numbers(pad, 2)
    if amounts is None or value not in (0, [0]) or len(amounts) != 2 * rank:
        return None
    begins, ends = amounts[:rank], amounts[rank:]
    if any(begins[:2] + ends[:2]) or min(amounts) < 0:
        return None
    return begins[2:] + ends[2:]


def _numbers(node: gs.Node, index: int) -> list[int] | None:
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return values_of(tensor).load().reshape(-1).tolist() if isinstance(tensor, gs.Constant) else None
