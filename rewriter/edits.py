"""The few ways in which the graph is changed; everything else is composed of them.

graphsurgeon keeps nodes and tensors in step, but finds list members by comparing them, which is slow and, for nodes
without names, wrong. These edits find them by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_graphsurgeon as gs

from onnxpress.rewriter.model import Model
from onnxpress.rewriter.walk import graphs, nodes


def set_input(node: gs.Node, index: int, tensor: gs.Tensor) -> None:
    """Let `node` read `tensor` at `index`; empty inputs are added up to there."""
    while len(node.inputs) <= index:
        node.inputs.append(gs.Variable.empty())
    _forget(node.inputs[index].outputs, node)
    list.__setitem__(node.inputs, index, tensor)
    list.append(tensor.outputs, node)


def set_output(node: gs.Node, index: int, tensor: gs.Tensor) -> None:
    """Let `node` write `tensor` at `index`."""
    _forget(node.outputs[index].inputs, node)
    list.__setitem__(node.outputs, index, tensor)
    list.append(tensor.inputs, node)


def detach(node: gs.Node) -> None:
    """Cut a node, and the nodes of its subgraphs, from all tensors; the next sweep removes it."""
    for inner in node.attrs.values():
        if isinstance(inner, gs.Graph):
            for each in list(inner.nodes):
                detach(each)
    for tensor in node.inputs:
        _forget(tensor.outputs, node)
    for tensor in node.outputs:
        _forget(tensor.inputs, node)
    list.clear(node.inputs)
    list.clear(node.outputs)


def add_node(
    model: Model,
    graph: gs.Graph,
    op: str,
    inputs: Sequence[gs.Tensor],
    *,
    hint: str,
    attrs: dict[str, object] | None = None,
    outputs: Sequence[gs.Tensor] | None = None,
    domain: str | None = None,
) -> gs.Tensor:
    """Append a node; `sort` puts it in its place.

    Args:
        model: gives the names.
        graph: takes the node.
        op: operator.
        inputs: of the node.
        hint: for its name and that of its output.
        attrs: attributes.
        outputs: existing tensors to write; by default one new variable.
        domain: of the operator.

    Returns:
        The first output.
    """
    results = list(outputs) if outputs else [gs.Variable(model.names.fresh(f"{hint}_out"))]
    node = gs.Node(op, model.names.fresh(hint), attrs or {}, list(inputs), results, domain)
    graph.nodes.append(node)
    return results[0]


def output_ids(model: Model) -> set[int]:
    """Identities of the tensors that are outputs of any graph."""
    return {id(t) for graph in graphs(model.graph) for t in graph.outputs}


def redirect(model: Model, graph: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """Let every reader of `old` read `new`; if `old` is a graph's output, its name stays the output's.

    `old` keeps its producer, which the next sweep removes unless something else needs it.
    """
    for consumer in list(old.outputs):
        for index, tensor in enumerate(consumer.inputs):
            if tensor is old:
                set_input(consumer, index, new)
    outputs = output_ids(model)
    if id(old) not in outputs:
        return
    producer = new.inputs[0] if new.inputs else None
    for each in list(old.inputs):
        detach(each)
    if producer is None or id(new) in outputs or all(n is not producer for n in graph.nodes):
        add_node(model, graph, "Identity", [new], hint=f"{old.name}_identity", outputs=[old])
        return
    set_output(producer, next(i for i, t in enumerate(producer.outputs) if t is new), old)
    for consumer in list(new.outputs):
        for index, tensor in enumerate(consumer.inputs):
            if tensor is new:
                set_input(consumer, index, old)


def to_constant(graph: gs.Graph, tensor: gs.Variable, values: object) -> None:
    """Turn a variable into a constant of `graph`, for all its readers; its producer is cut off."""
    for producer in list(tensor.inputs):
        detach(producer)
    tensor.to_constant(values)
    tensor._export_dtype = None
    tensor.__dict__.pop("source", None)  # it declared a variable
    graph.constants.append(tensor)


def sweep(model: Model) -> int:
    """Remove nodes nobody reads and constants nobody uses, and put nodes in order.

    Returns:
        Number of nodes removed.
    """
    removed = 0
    kept_tensors = output_ids(model)
    for graph in reversed(list(graphs(model.graph))):
        sort(graph)
        alive = []
        for node in reversed(graph.nodes):
            if any(t.outputs or id(t) in kept_tensors for t in node.outputs):
                alive.append(node)
            else:
                detach(node)
                removed += 1
        graph.nodes[:] = reversed(alive)
    for graph in graphs(model.graph):
        inputs = {id(t) for t in graph.inputs}
        graph.constants = [c for c in graph.constants if c.outputs or id(c) in kept_tensors or id(c) in inputs]
    return removed


def sort(graph: gs.Graph) -> None:
    """Order nodes so that each stands after what it reads; otherwise as they were.

    A cycle is left for the invariants to report.
    """
    position = {id(node): index for index, node in enumerate(graph.nodes)}
    edges = [
        (position[id(source)], index)
        for index, node in enumerate(graph.nodes)
        for tensor in _reads(node)
        for source in tensor.inputs
        if id(source) in position and source is not node
    ]
    if all(source < reader for source, reader in edges):
        return
    import networkx  # here, because a graph is mostly in order, and importing it takes a while

    order = networkx.DiGraph(edges)
    order.add_nodes_from(range(len(graph.nodes)))
    if networkx.is_directed_acyclic_graph(order):
        graph.nodes[:] = [graph.nodes[index] for index in networkx.lexicographical_topological_sort(order)]


def _reads(node: gs.Node) -> Iterable[gs.Tensor]:
    """What a node reads, also from inside its subgraphs."""
    yield from node.inputs
    for inner in node.attrs.values():
        if isinstance(inner, gs.Graph):
            yield from inner.outputs
            for _, each in nodes(inner):
                yield from each.inputs


def _forget(members: list[object], member: object) -> None:
    for index, each in enumerate(members):
        if each is member:
            list.__delitem__(members, index)
            return
