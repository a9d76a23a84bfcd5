"""One way to visit a model: every graph, every node, subgraphs included."""

from __future__ import annotations

from collections.abc import Iterator

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
