"""One way to visit a model: every graph, every node, subgraphs included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_graphsurgeon as gs


def graphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """`graph` and all graphs inside it, outer ones first."""
    yield graph
    for node in graph.nodes:
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                yield from graphs(inner)


def nodes(graph: gs.Graph) -> Iterator[tuple[gs.Graph, gs.Node]]:
    """Every node with the graph it stands in."""
    for each in graphs(graph):
        for node in each.nodes:
            yield each, node


def nodes_behind(graph: gs.Graph, starts: Iterable[gs.Node]) -> set[int]:
    """Identities of some nodes and of all that read what they write, out of branches and through the nodes around them.

    Args:
        graph: the outermost that holds the nodes.
        starts: nodes of any graph inside it; they count as behind themselves.
    """
    outer = {
        id(inside): node
        for _, node in nodes(graph)
        for inner in node.attrs.values()
        if isinstance(inner, gs.Graph)
        for inside in inner.nodes
    }
    found: set[int] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if id(node) in found:
            continue
        found.add(id(node))
        waiting += [reader for tensor in node.outputs for reader in tensor.outputs]
        if id(node) in outer:  # what a branch writes, the node around it gives
            waiting.append(outer[id(node)])
    return found
