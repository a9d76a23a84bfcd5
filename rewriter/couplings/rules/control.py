"""Nodes with subgraphs. What a subgraph reads from outside is tied by the nodes inside that read it."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Links, Rule


def link_if(links: Links) -> None:
    """Each output is the output of the branch that runs.

    A branch whose output has another rank than what later nodes can take never runs.
    """
    branches = [each for each in links.node.attrs.values() if isinstance(each, gs.Graph)]
    for index, outer in enumerate(links.node.outputs):
        for branch in branches:
            _link_end(links, outer, branch.outputs[index])


def _link_end(links: Links, outer: gs.Tensor, inner: gs.Tensor) -> None:
    shape, ends = links.shapes.shape(outer), links.shapes.shape(inner)
    if shape is not None and ends is not None and len(shape) == len(ends):
        links.same(outer, inner)
        return
    for axis in range(len(ends or ())):
        if shape is None:
            links.keep((inner, axis), f"the branches of {links.title} give different ranks")
        else:
            links.leave((inner, axis))


def link_loop(links: Links) -> None:
    """What a loop carries or collects keeps its shape."""
    links.refuse("what it carries from one round to the next keeps its shape")


RULES = {
    ("", "If"): Rule(link_if, partial=True),
    **{("", op): Rule(link_loop, partial=True) for op in ("Loop", "Scan", "SequenceMap")},
}
