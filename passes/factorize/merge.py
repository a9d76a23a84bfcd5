"""Two linear layers directly behind one another, as one, where their product takes less."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.factorize.adjacent import Neighbours, adjacent
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.report import Report, Skip
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.rewriter.edits import add_node, set_input, set_output, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import values_of


@dataclass(frozen=True, kw_only=True)
class MergeProducts(Pass):
    """Make one layer of two that follow one another with nothing but a bias between, where one takes less.

    MatMul behind MatMul, Gemm behind Gemm, or one behind the other; a Conv of 1x1 behind any Conv, or before one. The
    one layer must take fewer multiply-adds and fewer weights than the two. It is exact but for rounding.
    """

    name: ClassVar[str] = "merge-products"

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Merge what pays; every pair ends in the report."""
        report = self.report()
        report.skips.extend(merge_products(model, report))
        return report


def merge_products(
    model: Model, report: Report, *, wanted: Callable[[Neighbours], bool] = lambda pair: True
) -> list[Skip]:
    """Merge pairs of which one layer takes less than both, those with the widest tensor between them first.

    Of several matrices in a row the product over the narrowest tensor is left, or one layer where that takes less: no
    other choice takes fewer multiply-adds, for with more than one tensor between them there is always a pair that pays.

    Args:
        model: is changed.
        report: takes the changes.
        wanted: whether a pair may be merged; others stay, and are not told of.

    Returns:
        The pairs that stay, with reasons.
    """
    sweep(model)
    while True:
        skips = list[Skip]()
        for pair in sorted(filter(wanted, adjacent(model)), key=lambda each: -each.middle):
            try:
                pair.check(model)
                pair.refuse_if_none_saved()
                _merge(model, pair, report)
            except RefusalError as refusal:
                skips.append(Skip(pair.name, str(refusal)))
                continue
            break
        else:
            return skips
        sweep(model)


def merge_chains(model: Model, report: Report, *, before: Collection[str], allowed: Collection[str]) -> None:
    """Merge what chains left behind one another: the end of one, and the start of the next or a layer that stayed.

    Args:
        model: with chains; it is changed.
        report: takes the changes.
        before: names of all sites that the model had before.
        allowed: those of them that may change.
    """

    def wanted(pair: Neighbours) -> bool:
        names = {pair.first.name, pair.second.name}
        return not names <= set(before) and names & set(before) <= set(allowed)

    merge_products(model, report, wanted=wanted)


def _merge(model: Model, pair: Neighbours, report: Report) -> None:
    """Let the second layer do what both did.

    Raises:
        RefusalError: the type of weight or bias cannot hold the products; nothing was changed.
    """
    first, second = pair.first, pair.second
    layout, wide = pair.layout(), pair.product()
    stored = narrowed(layout.from_rows(wide), values_of(second.weight).dtype)
    one, two = pair.multiply_adds()
    action = f"merged with '{first.name}' before it: {one} multiply-adds instead of {two}"
    before, error = first.nbytes + second.nbytes, relative_error(wide, layout.to_rows(stored))
    _move_bias(model, pair)
    node, attributes = second.node, pair.attributes()
    set_input(node, pair.reader.index, model.add_weight(f"{second.weight.name}_merged", stored))
    set_input(node, 1 - pair.reader.index, first.node.inputs[1 - pair.use.index])
    node.attrs.clear()
    node.attrs.update(attributes)
    report.change(second.name, action, bytes_before=before, bytes_after=stored.nbytes, error=error)


def _move_bias(model: Model, pair: Neighbours) -> None:
    """Let the second layer add what comes of the bias of the first.

    Raises:
        RefusalError: the type of its own bias cannot hold both; nothing was changed.
    """
    delta = pair.delta(model)
    if delta is None:
        return
    intercept = intercept_of(model, pair.second)
    if intercept is not None:
        intercept.add(model, delta)
        return
    row = delta if pair.reader.index else delta[:, np.newaxis]
    _add_behind(model, pair, narrowed(row, values_of(pair.second.weight).dtype, what="bias"))


def _add_behind(model: Model, pair: Neighbours, bias: Array) -> None:
    """A constant added to what a MatMul gives."""
    node, output = pair.second.node, pair.second.node.outputs[0]
    hint = f"{node.name or node.op}_bias"
    raw = gs.Variable(model.names.fresh(f"{output.name}_product"), output.dtype)
    set_output(node, 0, raw)
    add_node(model, pair.reader.graph, "Add", [raw, model.add_weight(hint, bias)], hint=hint, outputs=[output])
