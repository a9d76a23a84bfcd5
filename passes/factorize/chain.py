"""Put a chain of layers in the place of one: the edit that all factorizations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import add_node, detach
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import values_of

Attributes = dict[str, object]


@dataclass(frozen=True, slots=True)
class Link:
    """One layer of a chain.

    Attributes:
        suffix: of its name and its weight's.
        weight: of any float dtype, stored in that of the original; or whole numbers, stored as they are.
        attributes: those of the layer, made from the node that it replaces.
        op: operator, perhaps by the node that it replaces; None for that of the node.
        left: the weight is the first input.
        bias: whether it takes what else the node reads; None for the last link.
        order: in which it takes the values of the bias; None for the order they have.
    """

    suffix: str
    weight: Array
    attributes: Callable[[gs.Node], Attributes] = field(default=lambda node: {})
    op: str | Callable[[gs.Node], str] | None = None
    left: bool = False
    bias: bool = False
    order: Array | None = None


def replace_by_chain(model: Model, site: Site, links: Sequence[Link]) -> int:
    """Replace all nodes that use a site's weight; they share the new weights as they shared the old one.

    The last link, or the one that says so, takes the bias; the last takes the output tensors, so that nothing
    downstream changes.

    Returns:
        Bytes of the new weights.
    """
    dtype, nbytes, weights = values_of(site.weight).dtype, 0, []
    for link in links:
        whole = np.issubdtype(link.weight.dtype, np.integer)
        array = np.ascontiguousarray(link.weight if whole else link.weight.astype(dtype))
        nbytes += array.nbytes
        weights.append(model.add_weight(f"{site.weight.name}_{link.suffix}", array))
    for use in site.uses:
        _replace(model, use, links, weights)
    return nbytes


def _replace(model: Model, use: Use, links: Sequence[Link], weights: Sequence[gs.Constant]) -> None:
    node = use.node
    hint = node.name or f"{node.op}_{node.outputs[0].name}"
    outputs, rest = list(node.outputs), list(node.inputs)[2:]
    made = [(link.attributes(node), link.op(node) if callable(link.op) else link.op or node.op) for link in links]
    taker = next((index for index, link in enumerate(links) if link.bias), len(links) - 1)
    if rest and (order := links[taker].order) is not None:
        rest[0] = model.add_weight(f"{hint}_bias", model.array(rest[0])[order])
    tensor: gs.Tensor = node.inputs[1 - use.index]
    detach(node)
    for index, (link, weight) in enumerate(zip(links, weights, strict=True)):
        attributes, op = made[index]
        tensor = add_node(
            model,
            use.graph,
            op,
            [*((weight, tensor) if link.left else (tensor, weight)), *(rest if index == taker else ())],
            hint=f"{hint}_{link.suffix}",
            attrs=attributes,
            outputs=outputs if index == len(links) - 1 else None,
            domain=node.domain,
        )


def refuse_different_uses(site: Site) -> None:
    """Refuse a weight that its nodes see in different ways.

    Raises:
        RefusalError: names them.
    """
    first = site.uses[0]
    for use in site.uses[1:]:
        same = (use.node.op, use.node.domain, use.index, use.axes) == (
            first.node.op,
            first.node.domain,
            first.index,
            first.axes,
        )
        if not same:
            raise RefusalError(
                f"is shared by {first.node.op} '{first.node.name}' and {use.node.op} '{use.node.name}', "
                "which read it in different ways"
            )
