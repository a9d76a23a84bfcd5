"""Why each tensor carries codes or not: one short reason for each."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from onnxpress.passes.quantize.placement import Placement
from onnxpress.passes.quantize.plan import Plan
from onnxpress.passes.quantize.recurrent import key_of
from onnxpress.passes.quantize.rules import ABSORBED, is_standard, rule_of
from onnxpress.rewriter.model import Model


def explain_nodes(model: Model, plan: Plan, placement: Placement, reasons: Mapping[str, str]) -> dict[str, str]:
    """Why layers that could compute on codes do not, by their first output."""
    wanted, found = set(plan.nodes(tuple(reasons))), {}
    for node in model.graph.nodes:
        if node.outputs and key_of(node) in wanted and id(node) not in placement.coded:
            odd = [t.name for t in (*node.inputs, *node.outputs) if plan.is_odd(t.name)]
            thin = "it sums too few products for an output that is read in float"
            found[key_of(node)] = f"'{odd[0]}' held NaN or infinities" if odd else thin
    return found


def explain_tensors(model: Model, plan: Plan, placement: Placement, reasons: Mapping[str, str]) -> dict[str, str]:
    """Why each float tensor of the main graph carries codes or not, by name.

    Args:
        model: as it is before codes are written.
        plan: what it is written by.
        placement: where codes go.
        reasons: why nodes that use a weight compute in float, by their first output.
    """
    return _Account(model, plan, placement, reasons).tensors()


class _Account:
    """What is asked again and again while tensors are explained."""

    def __init__(self, model: Model, plan: Plan, placement: Placement, reasons: Mapping[str, str]) -> None:
        self._model = model
        self._plan = plan
        self._coded = placement.coded
        self._wrapped = {id(each.tensor) for each in placement.tensors}
        self._tails = {id(tail) for tail in placement.tails.values()}
        self._layers = reasons

    def tensors(self) -> dict[str, str]:
        every = [*self._model.graph.inputs, *(out for node in self._model.graph.nodes for out in node.outputs)]
        return {each.name: self._reason(each) for each in every if each.name in self._plan.floating}

    def _reason(self, tensor: gs.Tensor) -> str:
        readers = list({id(node): node for node in tensor.outputs}.values())
        if id(tensor) in self._wrapped:
            return f"codes: {self._why_codes(tensor, readers)}"
        if self._plan.is_odd(tensor.name):
            return "float: held NaN or infinities"
        if not readers:
            return "float: an output of the model"
        reader = readers[0]
        if reader.op in ABSORBED and id(reader.outputs[0]) in self._tails:
            return f"none: {reader.op} behind it is part of its codes"
        return f"float: {self._why_float(reader)}"

    def _why_codes(self, tensor: gs.Tensor, readers: list[gs.Node]) -> str:
        found = next((node for node in readers if id(node) in self._coded), None)
        if found is not None:
            return f"{found.op} reads them"
        source = tensor.inputs[0] if tensor.inputs else None
        return f"{source.op} gives them" if source is not None else "every tensor"

    def _why_float(self, reader: gs.Node) -> str:
        """Why somebody reads float."""
        rule = rule_of(reader, self._plan.target.rules)
        if not is_standard(reader) or rule is None:
            return f"{reader.op} computes in float"
        key = key_of(reader)
        if key in self._layers:
            return f"{reader.op} computes in float: {self._layers[key]}"
        if (refused := None if rule.layer else rule.refuse(reader)) is not None:
            return f"{reader.op} computes in float: {refused}"
        if id(reader) in self._coded:
            return f"{reader.op} fuses with it"
        return f"{reader.op} follows only where codes come and are read"
