"""Transposes that exporters leave between every two layers (NHWC to NCHW and back) cancel.

Each tensor is seen as a permuted view of a base tensor. One pass in graph order carries the views through the nodes
that do not care about the order of axes; where a node does care, the view is written out as one Transpose. The plan
is made first and carried out only if it leaves fewer Transposes than there were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import add_node, output_ids, redirect, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Dense, values_of

Perm = tuple[int, ...]
"""Axis i of the view is axis perm[i] of the base."""

# fmt: off
_ELEMENTWISE = {
    "Abs", "Acos", "Asin", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh",
    "ThresholdedRelu", "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
    "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
}
# fmt: on
_FIRST_ONLY = {"Clip"}  # the other inputs are scalars
_BY_AXIS = {"Softmax", "LogSoftmax", "Hardmax", "Concat"}  # before opset 13, Softmax flattened its input
_REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2"}


@dataclass(slots=True)
class _View:
    """What a tensor is: `base` with its axes permuted."""

    base: gs.Tensor
    perm: Perm


@dataclass(slots=True)
class _Plan:
    """How each movable node is to work on bases, and which views must be written out."""

    views: dict[int, _View] = field(default_factory=dict)
    moved: list[tuple[gs.Node, Perm]] = field(default_factory=list)
    written: dict[tuple[int, Perm], gs.Tensor] = field(default_factory=dict)


def cancel_transposes(model: Model, shapes: Shapes) -> Outcome:
    """Carry Transposes forward until they cancel."""
    outcome = Outcome()
    for graph in graphs(model.graph):
        before = [n for n in graph.nodes if _is_transpose(n)]
        if not before:
            continue
        plan = _plan(graph, model.opset, output_ids(model))
        if len(plan.written) < len(before):
            _carry_out(model, graph, plan)
            outcome.counts["Transpose nodes cancelled"] += len(before) - len(plan.written)
    return outcome


def _is_transpose(node: gs.Node) -> bool:
    return node.op == "Transpose" and node.domain in (None, "", "ai.onnx") and isinstance(node.attrs.get("perm"), list)


def _unmoved(rank: int) -> Perm:
    return tuple(range(rank))


def _plan(graph: gs.Graph, opset: int, public: set[int]) -> _Plan:
    plan = _Plan()
    for node in graph.nodes:
        if _is_transpose(node):
            view = plan.views.get(id(node.inputs[0]), _View(node.inputs[0], _unmoved(len(node.attrs["perm"]))))
            perm = tuple(view.perm[axis] for axis in node.attrs["perm"])
            plan.views[id(node.outputs[0])] = _View(view.base, perm)
        elif (perms := _movable(node, plan, opset)) is not None:
            out = node.outputs[0]
            if id(out) in public and perms[1] != _unmoved(len(perms[1])):
                continue  # the Transpose would only move from before the node to after it
            plan.moved.append((node, perms[0]))
            plan.views[id(out)] = _View(out, perms[1])  # from now on it writes the base
    _find_written(graph, plan, public)
    return plan


def _movable(node: gs.Node, plan: _Plan, opset: int) -> tuple[Perm, Perm] | None:
    """The permutations of what a node reads and writes, if it can work on bases."""
    if node.domain not in (None, "", "ai.onnx") or len(node.outputs) != 1:
        return None
    rule = _rule(node, opset)
    views = [plan.views.get(id(t)) for t in node.inputs]
    perms = {view.perm for view in views if view is not None}
    if rule is None or len(perms) != 1:
        return None
    perm = next(iter(perms))
    if perm == _unmoved(len(perm)):
        return None
    for index, (tensor, view) in enumerate(zip(node.inputs, views, strict=True)):
        if view is not None or not tensor.name or (index and (node.op in _FIRST_ONLY | _REDUCTIONS)):
            continue
        fits = isinstance(tensor, gs.Constant) and node.op in _ELEMENTWISE and len(tensor.shape) <= len(perm)
        if not fits:
            return None
    return perm, rule(node, perm)


def _rule(node: gs.Node, opset: int) -> Callable[[gs.Node, Perm], Perm] | None:
    """How the view of what a node writes follows from the view it reads."""
    by_axis = node.op in _BY_AXIS and "axis" in node.attrs and (node.op == "Concat" or opset >= 13)
    if node.op in _ELEMENTWISE or by_axis:
        return lambda node, perm: perm
    if node.op in _REDUCTIONS and _axes(node):
        return _reduced
    return None


def _reduced(node: gs.Node, perm: Perm) -> Perm:
    """What the axes that a reduction leaves become."""
    if node.attrs.get("keepdims", 1):
        return perm
    axes = {axis % len(perm) for axis in _axes(node) or []}
    left = [perm[i] for i in range(len(perm)) if i not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


def _axes(node: gs.Node) -> list[int] | None:
    if isinstance(axes := node.attrs.get("axes"), list):
        return axes
    if len(node.inputs) > 1 and isinstance(node.inputs[1], gs.Constant):
        return [int(axis) for axis in values_of(node.inputs[1]).load()]
    return None


def _find_written(graph: gs.Graph, plan: _Plan, public: set[int]) -> None:
    """Note every view that some reader needs as it is."""
    free = _free_of_views(graph, plan)
    for node in graph.nodes:
        for tensor in node.outputs:
            view = plan.views.get(id(tensor))
            if view is None or view.perm == _unmoved(len(view.perm)):
                continue
            if any(id(reader) not in free for reader in tensor.outputs) or id(tensor) in public:
                plan.written.setdefault((id(view.base), view.perm), tensor)


def _free_of_views(graph: gs.Graph, plan: _Plan) -> set[int]:
    """Nodes that need no view written out: they work on bases, or are Transposes themselves."""
    return {id(node) for node, _ in plan.moved} | {id(node) for node in graph.nodes if _is_transpose(node)}


def _carry_out(model: Model, graph: gs.Graph, plan: _Plan) -> None:
    readers = {id(t): list(t.outputs) for n in graph.nodes for t in n.outputs if id(t) in plan.views}
    tensors = {id(t): t for n in graph.nodes for t in n.outputs if id(t) in plan.views}
    free = _free_of_views(graph, plan)
    public = output_ids(model)
    for node, perm in plan.moved:
        _rebase(model, node, perm, plan)
    written: dict[tuple[int, Perm], gs.Tensor] = {}
    for key, tensor in tensors.items():
        view = plan.views[key]
        identity = view.perm == _unmoved(len(view.perm))
        kept = [r for r in readers[key] if id(r) not in free]
        if (not kept and key not in public) or (identity and view.base is tensor):
            continue
        place = (id(view.base), view.perm)
        if place not in written:
            written[place] = view.base if identity else _transposed(model, graph, view.base, view.perm)
        if key in public:
            redirect(model, graph, tensor, written[place])
            continue
        for reader in kept:
            for index, each in enumerate(reader.inputs):
                if each is tensor:
                    set_input(reader, index, written[place])


def _transposed(model: Model, graph: gs.Graph, base: gs.Tensor, perm: Perm) -> gs.Tensor:
    return add_node(model, graph, "Transpose", [base], hint=f"{base.name}_transpose", attrs={"perm": list(perm)})


def _rebase(model: Model, node: gs.Node, perm: Perm, plan: _Plan) -> None:
    """Let a node read bases, its constants and axes permuted accordingly."""
    back = tuple(int(i) for i in np.argsort(perm))
    for index, tensor in enumerate(node.inputs):
        view = plan.views.get(id(tensor))
        if view is not None:
            set_input(node, index, view.base)
        elif isinstance(tensor, gs.Constant) and node.op in _ELEMENTWISE - _FIRST_ONLY and len(tensor.shape):
            array = values_of(tensor).load()
            array = array.reshape((1,) * (len(perm) - array.ndim) + array.shape).transpose(back)
            set_input(node, index, model.add_weight(f"{tensor.name}_nchw", Dense(np.ascontiguousarray(array))))
    if node.op in _BY_AXIS:
        node.attrs["axis"] = perm[node.attrs["axis"] % len(perm)]
    elif node.op in _REDUCTIONS:
        axes = [perm[axis % len(perm)] for axis in _axes(node) or []]
        if "axes" in node.attrs:
            node.attrs["axes"] = sorted(axes)
        else:
            set_input(node, 1, model.add_weight("axes", Dense(np.array(sorted(axes), np.int64))))
    out = node.outputs[0]
    if plan.views[id(out)].perm != _unmoved(len(plan.views[id(out)].perm)):  # its declared shape is that of the view
        out.dtype = out.shape = None
        out.__dict__.pop("source", None)
