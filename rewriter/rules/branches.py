"""An If whose condition never changes gives way to the branch that runs.

ONNX Runtime does the same when it loads a model; here, weights of the branch become sites of the main graph.
"""

from __future__ import annotations

from collections import Counter

import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import detach, redirect, sort
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import read

_Taken = Counter[tuple[bool, str]]
"""How many graphs give a name: to a node (True), to a tensor."""


def choose_branches(model: Model, shapes: Shapes) -> Outcome:
    """Write the branch that runs in the place of its If, in every graph; what it holds gets names of its own."""
    outcome = Outcome()
    taken = Counter(name for graph in graphs(model.graph) for name in _names(graph))
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        count = _choose(model, graph, shapes, taken)
        if count:
            sort(graph)
            outcome.counts["branches that always run took the place of their If"] += count
        pending += [inner for node in graph.nodes for inner in node.attrs.values() if isinstance(inner, gs.Graph)]
    return outcome


def _choose(model: Model, graph: gs.Graph, shapes: Shapes, taken: _Taken) -> int:
    count = index = 0
    while index < len(graph.nodes):
        branch = _branch(graph.nodes[index], shapes)
        if branch is None:
            index += 1
        else:  # what comes of the branch is looked at next
            _rename(model, branch, taken)
            _write(model, graph, index, branch)
            count += 1
    return count


def _branch(node: gs.Node, shapes: Shapes) -> gs.Graph | None:
    """The branch that always runs; None of any other node."""
    if node.op != "If" or node.domain not in (None, "", "ai.onnx"):
        return None
    condition = node.inputs[0]
    if not isinstance(condition, gs.Constant) or id(condition) in shapes.defaults:
        return None
    branch = node.attrs["then_branch" if read(condition).all() else "else_branch"]
    return branch if isinstance(branch, gs.Graph) else None


def _names(graph: gs.Graph) -> set[tuple[bool, str]]:
    """Names that a graph gives, those of graphs inside it left out."""
    tensors = {(False, tensor.name) for tensor in [*_own(graph), *graph.inputs]}
    return tensors | {(True, node.name) for node in graph.nodes}


def _own(graph: gs.Graph) -> list[gs.Tensor]:
    return [*graph.constants, *(tensor for node in graph.nodes for tensor in node.outputs)]


def _rename(model: Model, branch: gs.Graph, taken: _Taken) -> None:
    """Two branches may use one name, two nodes of a graph may not."""
    for inner in graphs(branch):
        for each in [*_own(inner), *inner.inputs, *inner.nodes]:
            if each.name and taken[isinstance(each, gs.Node), each.name] > 1:
                each.name = model.names.fresh(each.name)


def _write(model: Model, graph: gs.Graph, index: int, branch: gs.Graph) -> None:
    """Move what is in a branch to where its If stands."""
    node = graph.nodes[index]
    graph.nodes[index : index + 1] = list(branch.nodes)
    graph.constants = [*graph.constants, *branch.constants]
    ends = list(zip(node.outputs, branch.outputs, strict=True))
    branch.nodes[:] = []  # they are cut off with the node otherwise
    detach(node)
    now: dict[int, gs.Tensor] = {}
    for old, end in ends:
        if old.name:
            new = now.get(id(end), end)
            redirect(model, graph, old, new)
            now[id(end)] = old if old.inputs else new  # the name of an output stays, so it is what the node writes
