"""Put a chain of layers in the place of one: the edit that all factorizations share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.rank import RankedPass
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import add_node, detach, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import values_of

Attributes = dict[str, object]


@dataclass(frozen=True, slots=True)
class Link:
    """One layer of a chain.

    Attributes:
        suffix: of its name and its weight's.
        weight: of any float dtype; stored in that of the original.
        attributes: those of the layer, made from the node that it replaces.
        op: operator; None for that of the original.
        left: the weight is the first input.
    """

    suffix: str
    weight: Float64Array
    attributes: Callable[[gs.Node], Attributes] = field(default=lambda node: {})
    op: str | None = None
    left: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a site.

    Attributes:
        action: for the report.
        links: the chain, in the order of computation.
        error: ‖W − W'‖ / ‖W‖.
    """

    action: str
    links: tuple[Link, ...]
    error: float


class FactorizePass(RankedPass):
    """A pass that replaces layers by chains of smaller ones."""

    @abstractmethod
    def plan(self, site: Site, model: Model, bench: Workbench) -> Plan:
        """What to put in the place of a site's nodes.

        Raises:
            RefusalError: why nothing.
        """

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Factorize every site that is made smaller by it."""
        report = self.report()
        sites = self.candidates(model, report)
        for site in bench.progress.track(sites, label=self.name, total=len(sites)):
            try:
                _refuse_different_uses(site)
                plan = self.plan(site, model, bench)
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
                continue
            before = site.nbytes
            after = replace_by_chain(model, site, plan.links)
            report.change(site.name, plan.action, bytes_before=before, bytes_after=after, error=plan.error)
        sweep(model)
        return report


def replace_by_chain(model: Model, site: Site, links: Sequence[Link]) -> int:
    """Replace all nodes that use a site's weight; they share the new weights as they shared the old one.

    The last link takes the bias, the attributes made for it and the output tensors, so that nothing downstream
    changes.

    Returns:
        Bytes of the new weights.
    """
    dtype, nbytes, weights = values_of(site.weight).dtype, 0, []
    for link in links:
        array = np.ascontiguousarray(link.weight.astype(dtype))
        nbytes += array.nbytes
        weights.append(model.add_weight(f"{site.weight.name}_{link.suffix}", array))
    for use in site.uses:
        _replace(model, use, links, weights)
    return nbytes


def _replace(model: Model, use: Use, links: Sequence[Link], weights: Sequence[gs.Constant]) -> None:
    node = use.node
    hint = node.name or f"{node.op}_{node.outputs[0].name}"
    outputs, rest = list(node.outputs), list(node.inputs)[2:]
    attributes = [link.attributes(node) for link in links]
    tensor: gs.Tensor = node.inputs[1 - use.index]
    detach(node)
    for index, (link, weight) in enumerate(zip(links, weights, strict=True)):
        last = index == len(links) - 1
        tensor = add_node(
            model,
            use.graph,
            link.op or node.op,
            [*((weight, tensor) if link.left else (tensor, weight)), *(rest if last else ())],
            hint=f"{hint}_{link.suffix}",
            attrs=attributes[index],
            outputs=outputs if last else None,
            domain=node.domain,
        )


def finite(site: Site) -> Array:
    """The weight of a site.

    Raises:
        RefusalError: some of it is not finite.
    """
    array = site.array()
    if not np.isfinite(array).all():
        raise RefusalError("holds values that are not finite")
    return array


def _refuse_different_uses(site: Site) -> None:
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
