"""Walks a model, lets the rule of each node write its ties, and freezes whatever no rule speaks of."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.rewriter.completion import complete
from onnxpress.rewriter.couplings.folds import settle_folds
from onnxpress.rewriter.couplings.ledger import Ledger, Unclear, UnknownShape
from onnxpress.rewriter.couplings.links import Links, Rule
from onnxpress.rewriter.couplings.rules import RULES
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import Shapes, infer_shapes
from onnxpress.rewriter.walk import nodes


def write_ledger(model: Model, shapes: Shapes | None = None) -> tuple[Ledger, Shapes]:
    """What the rules of all nodes say, subgraphs included.

    Args:
        model: whose nodes are asked.
        shapes: of its tensors, if they were inferred already.
    """
    shapes = complete(model, infer_shapes(model)) if shapes is None else shapes
    ledger = Ledger()
    _freeze_ends(model, shapes, ledger)
    functions = {(f.domain, f.name) for f in model.functions}
    outputs = frozenset(output_ids(model))
    for _, node in nodes(model.graph):
        links = Links(node, shapes, model, ledger, outputs=outputs)
        links.open()
        rule = None if _names(node) & functions else rule_of(node)
        if rule is None:
            links.refuse("no rule says what it does with axes")
            continue
        unknown = next((t for t in links.touched() if shapes.shape(t) is None), None)
        try:
            if unknown is not None and not rule.partial:
                raise UnknownShape(f"the shape of '{unknown.name}' is unknown")
            rule.link(links)
        except Unclear as error:
            links.refuse(str(error))
        links.close()
    settle_folds(ledger)
    return ledger, shapes


def rule_of(node: gs.Node) -> Rule | None:
    """The rule of a node's operator."""
    domain = node.domain or ""
    return RULES.get(("" if domain in DEFAULT_DOMAINS else domain, node.op))


def _names(node: gs.Node) -> set[tuple[str, str]]:
    domain = node.domain or ""
    return {(each, node.op) for each in (DEFAULT_DOMAINS if domain in DEFAULT_DOMAINS else (domain,))}


def _freeze_ends(model: Model, shapes: Shapes, ledger: Ledger) -> None:
    """Shapes of graph inputs and outputs never change."""
    for tensors, role in ((model.graph.inputs, "an input"), (model.graph.outputs, "an output")):
        for tensor in tensors:
            for axis, size in enumerate(shapes.shape(tensor) or ()):
                if isinstance(size, int):
                    number = ledger.number((tensor, axis), size)
                    ledger.kept.append((number, None, f"'{tensor.name}' is {role} of the model"))
