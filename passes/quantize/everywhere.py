"""Codes on every tensor: for accelerators that compute in integers alone, such as Qualcomm's NPUs.

A node that is left in float there falls back to the CPU, with copies both ways, so there is no operator that float
serves better.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_graphsurgeon as gs

from onnxpress.passes.quantize.placement import Groups, Placement, Wrapped, tail_of
from onnxpress.passes.quantize.rules import CPU, is_standard
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model

INTEGERS = ("Cast", "Shape", "Size", "If", "Loop", "Scan", "Constant", "ConstantOfShape", "RNN", "GRU", "LSTM")
"""Operators beside which no codes stand: they change types, or hold graphs and states of their own."""


def place_everywhere(
    model: Model,
    *,
    floating: Collection[str],
    left: Collection[gs.Node] = (),
    barred: Collection[int] = (),
) -> Placement:
    """Plan codes on every float tensor of the main graph.

    Args:
        model: its nodes are in order.
        floating: names of the tensors that hold float32.
        left: nodes that compute in float.
        barred: identities of tensors that must not carry codes.
    """
    public = output_ids(model)
    passed = {id(node) for node in left}
    coded = {id(node): node for node in model.graph.nodes if id(node) not in passed and _takes(node, floating, barred)}
    placement = Placement(coded)
    placement.tails = {key: tail_of(node, public) for key, node in coded.items()}
    placement.tensors.extend(_wrap(model, placement, floating))
    return placement


def _takes(node: gs.Node, floating: Collection[str], barred: Collection[int]) -> bool:
    """Whether a node reads or gives floats, and none that must not be codes."""
    if not is_standard(node) or node.op in INTEGERS or _has_graph(node):
        return False
    touched = [each for each in (*node.inputs, *node.outputs) if each.name in floating]
    if not touched or any(id(each) in barred for each in touched):
        return False
    return any(not isinstance(each, gs.Constant) for each in node.inputs)


def _has_graph(node: gs.Node) -> bool:
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())


def _wrap(model: Model, placement: Placement, floating: Collection[str]) -> Iterator[Wrapped]:
    # What a Relu or Clip reads that vanishes into the node before it has no codes of its own.
    hidden = {id(n.outputs[0]) for key, n in placement.coded.items() if placement.tails[key] is not n.outputs[0]}
    groups = Groups()
    tensors: dict[int, gs.Tensor] = {}
    for node in placement.coded.values():
        rule = CPU.get(str(node.op))
        touched = [t for t in (*node.inputs, *node.outputs) if t.name in floating and id(t) not in hidden]
        tensors.update((id(tensor), tensor) for tensor in touched)
        if rule is not None and rule.shares:
            for tensor in touched[1:]:
                groups.unite(id(tensor), id(touched[0]))
    own = {id(tensor) for tensor in model.graph.inputs}
    for key, tensor in tensors.items():
        readers = _readers(tensor, placement) if key in own else None
        yield Wrapped(tensor, readers, groups.find(key))


def _readers(tensor: gs.Tensor, placement: Placement) -> tuple[tuple[gs.Node, int], ...]:
    each = {id(node): node for node in tensor.outputs if id(node) in placement.coded}.values()
    return tuple((node, i) for node in each for i, source in enumerate(node.inputs) if source is tensor)
