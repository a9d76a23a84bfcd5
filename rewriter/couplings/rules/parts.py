"""Operators that cut tensors up, put them together, or pick elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, IntArray, Links, Place, Rule
from onnxpress.rewriter.couplings.rules.sizes import write_integers
from onnxpress.rewriter.edits import set_input
from onnxpress.rewriter.extents import given, option
from onnxpress.rewriter.shapes import Shapes


def link_split(links: Links) -> None:
    """Outputs are neighbouring spans of one axis."""
    x = links.input(0)
    if x is not None:
        parts = [links.output(index) for index in range(len(links.node.outputs))]
        _tie_spans(links, x, parts, unclear="cuts it at places that are not fixed")


def _tie_spans(links: Links, whole: gs.Tensor, parts: Sequence[gs.Tensor | None], *, unclear: str) -> None:
    """Neighbouring spans of an axis of `whole` are that axis of each part; the others are the same.

    From a part on whose size is not fixed, or that is left out, spans stay: `unclear` says why.
    """
    axis = links.axis(whole, int(links.node.attrs.get("axis", 0)))
    start: int | None = 0
    for part in parts:
        if part is None:  # its size is unknown, and so is where the next one starts
            start = None
            continue
        links.same(whole, part, but=(axis,))
        size = links.size(part, axis)
        if start is None or size is None or links.size(whole, axis) is None:
            start = None
            for tensor in (whole, part):
                links.keep((tensor, axis), f"{links.title} {unclear}")
            continue
        links.tie((whole, axis), (part, axis), at=np.arange(start, start + size))
        start += size


def amend_split(amendment: Amendment) -> None:
    """New sizes of the parts; equal parts need not be equal any more."""
    node = amendment.node
    axis = int(node.attrs.get("axis", 0)) % len(amendment.shapes.shape(node.inputs[0]) or (0,))
    if amendment.kept((node.inputs[0], axis)) is None:
        return
    sizes = [amendment.size((y, axis)) for y in node.outputs]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return
    node.attrs.pop("num_outputs", None)
    if amendment.model.opset < 13:
        node.attrs["split"] = known
    else:
        write_integers(amendment, "split", 1, known)


def link_concat(links: Links) -> None:
    """Inputs are neighbouring spans of one axis."""
    y = links.output(0)
    if y is not None:
        parts = [tensor for tensor in links.node.inputs if tensor.name]
        _tie_spans(links, y, parts, unclear="joins it with parts whose size is not fixed")


def link_slice(links: Links) -> None:
    """What lies between constant bounds is tied; what is left out may go on its own."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    if links.rank(x) != links.rank(y):
        links.refuse("its result has another rank than it should")
        return
    cuts = _cuts(links.node, links.rank(x), links.shapes)
    if cuts is None:
        links.refuse("its axes are computed")
        return
    for axis in range(links.rank(x)):
        if axis in cuts:
            _link_cut(links, (x, axis), (y, axis), cuts[axis])
        else:
            links.tie((x, axis), (y, axis))


def _link_cut(links: Links, before: Place, behind: Place, cut: slice | None) -> None:
    """One axis of a Slice; where it takes every nth element, n neighbours go together, so that it still does."""
    size = links.size(*before)
    picked = None if cut is None or size is None else range(size)[cut]
    if picked is None or size is None:
        reason = "cuts it at places that are not fixed"
    elif len(picked) > 1 and picked.step < 0:
        reason = "goes through it backwards"
    else:
        links.tie(before, behind, at=np.arange(size)[cut])
        if len(picked) > 1 and picked.step > 1:
            links.unite(before, np.arange(size) // picked.step)
        return
    for place in (before, behind):
        links.keep(place, f"{links.title} {reason}")


def amend_slice(amendment: Amendment) -> None:
    """Bounds count what is left of the axis."""
    node = amendment.node
    x, rank = node.inputs[0], len(amendment.shapes.shape(node.inputs[0]) or ())
    starts, ends, axes = _bounds(node, rank, amendment.shapes)
    if starts is None or ends is None or axes is None:
        return
    cuts = _cuts(node, rank, amendment.shapes) or {}
    changed = False
    for position, axis in enumerate(axes):
        kept, was, cut = amendment.kept((x, axis)), amendment.was((x, axis)), cuts.get(axis)
        if kept is None or was is None or cut is None:
            continue
        first, last, step = cut.indices(was)
        left = kept[np.isin(kept, np.arange(first, last, step))]  # the first one picked may be gone
        first = int(left[0]) if left.size else first
        starts[position], ends[position] = (int(each) for each in np.searchsorted(kept, (first, last)))
        changed = True
    if changed:
        write_integers(amendment, "starts", 1, starts)
        write_integers(amendment, "ends", 2, ends)


def _bounds(node: gs.Node, rank: int, shapes: Shapes) -> tuple[list[int] | None, list[int] | None, list[int] | None]:
    """Starts, ends and axes (from 0) of a Slice; None where computed."""
    starts, ends = option(node, "starts", 1, shapes), option(node, "ends", 2, shapes)
    axes = option(node, "axes", 3, shapes)
    known = starts if starts is not None else ends
    if axes is None and given(node, 3) is None and known is not None:
        axes = list(range(len(known)))
    return starts, ends, None if axes is None else [axis % max(rank, 1) for axis in axes]


def _cuts(node: gs.Node, rank: int, shapes: Shapes) -> dict[int, slice | None] | None:
    """By axis what is cut out, None where that is computed; None as a whole where the axes are."""
    starts, ends, axes = _bounds(node, rank, shapes)
    if axes is None:
        return None
    steps = option(node, "steps", 4, shapes) if given(node, 4) is not None else [1] * len(axes)
    if starts is None or ends is None or steps is None:
        return dict.fromkeys(axes)
    return {axis: slice(start, end, step) for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)}


def link_gather(links: Links) -> None:
    """Rows picked by constant numbers are tied with the rows of the output; other axes stay as they are."""
    x, picks, y = links.input(0), links.input(1), links.output(0)
    if x is None or picks is None or y is None:
        return
    rank, width = links.rank(x), links.rank(picks)
    axis = links.axis(x, int(links.node.attrs.get("axis", 0)))
    for other in range(rank):
        if other != axis:
            links.tie((x, other), (y, other if other < axis else other + width - 1))
    size, rows = links.size(x, axis), _rows(links, picks)
    if size is None or rows is None or width > 1:
        links.keep((x, axis), f"{links.title} picks from axis {axis} of '{x.name}' by number")
        for each in range(width):
            links.tie((picks, each), (y, axis + each))
    elif width:
        links.leave((picks, 0))  # the numbers are written anew
        links.tie((x, axis), (y, axis), at=rows % size)
    else:
        links.keep((x, axis), f"{links.title} picks one from axis {axis} of '{x.name}'", at=rows % size)


def _rows(links: Links, picks: gs.Tensor) -> IntArray | None:
    held = links.value(picks)
    return None if held is None or held.dtype.kind not in "iu" else np.atleast_1d(held).astype(np.int64)


def amend_gather(amendment: Amendment) -> None:
    """Constant numbers count what is left."""
    node = amendment.node
    x, picks, y = node.inputs[0], node.inputs[1], node.outputs[0]
    axis = int(node.attrs.get("axis", 0)) % len(amendment.shapes.shape(x) or (0,))
    held, kept, was = amendment.value(picks), amendment.kept((x, axis)), amendment.was((x, axis))
    if held is None or kept is None or was is None:
        return
    rows = held.astype(np.int64) % was
    stays = amendment.kept((y, axis)) if held.ndim else None
    rows = rows if stays is None else rows[stays]
    numbers = np.searchsorted(kept, rows).astype(held.dtype)
    hint = f"{node.name or node.op}_indices"
    set_input(node, 1, amendment.model.add_weight(hint, np.asarray(numbers)))


def _frozen(reason: str) -> Rule:
    return Rule(lambda links: links.refuse(reason), partial=True)


_BY_NUMBER = "it picks or places elements by number"
_BY_VALUE = "what it gives depends on values"

RULES = {
    ("", "Split"): Rule(link_split, amend_split),
    ("", "Concat"): Rule(link_concat),
    ("", "Slice"): Rule(link_slice, amend_slice),
    ("", "Gather"): Rule(link_gather, amend_gather),
    **{
        ("", op): _frozen(_BY_NUMBER)
        for op in ("GatherElements", "GatherND", "ScatterElements", "ScatterND", "Scatter", "OneHot", "TensorScatter")
    },
    **{("", op): _frozen(_BY_VALUE) for op in ("NonZero", "Unique", "Compress", "NonMaxSuppression")},
    ("", "Range"): _frozen("it makes as many numbers as it is told"),
    ("", "Size"): _frozen("it counts elements"),
}
