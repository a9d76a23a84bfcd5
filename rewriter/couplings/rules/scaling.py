"""Operators that change how many positions there are: what lies around, between, or folded into channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Contradiction, Links, Rule
from onnxpress.rewriter.couplings.rules.sizes import link_extents, retarget
from onnxpress.rewriter.extents import given, integers, option


def link_pad(links: Links) -> None:
    """Elements of the input keep their order; what is put around them stays as it is."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    widths, constant = _widths(links, rank), links.node.attrs.get("mode", "constant") == "constant"
    if widths is None:
        links.refuse("its widths are computed")
        return
    for axis in range(rank):
        before, behind = widths.get(axis, (0, 0))
        old, new = links.size(x, axis), links.size(y, axis)
        if not before and not behind:
            links.tie((x, axis), (y, axis))
        elif old is None or new is None or not constant or min(before, behind) < 0:
            for tensor in (x, y):
                links.keep((tensor, axis), f"{links.title} pads axis {axis} by what lies beside it, or cuts it")
        else:
            links.tie((x, axis), (y, axis), to=np.arange(before, before + old))
            around = np.r_[np.arange(before), np.arange(before + old, new)]
            links.keep((y, axis), f"{links.title} makes it", at=around)


def _widths(links: Links, rank: int) -> dict[int, tuple[int, int]] | None:
    pads = option(links.node, "pads", 1, links.shapes)
    axes = integers(links.input(3), links.shapes) if links.input(3) is not None else list(range(rank))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    half = len(axes)
    return {axis % max(rank, 1): (pads[i], pads[i + half]) for i, axis in enumerate(axes)}


def link_resize(links: Links) -> None:
    """Axes that are not scaled stay as they are."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    mode = links.node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize" or links.node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        links.refuse("it crops, or keeps the ratio of its axes")
        return
    factors = _factors(links, links.rank(x))
    for axis in range(links.rank(x)):
        old, new = links.size(x, axis), links.size(y, axis)
        if old is not None and old == new and (factors is None or factors.get(axis, 1.0) == 1.0):
            links.tie((x, axis), (y, axis))
        else:
            for tensor in (x, y):
                links.keep((tensor, axis), f"{links.title} scales axis {axis} of '{x.name}'")
    link_extents(links, 3, y, axes=_scaled_axes(links.node, links.rank(y)))


def _factors(links: Links, rank: int) -> dict[int, float] | None:
    """Scale of each axis, as far as it is a constant."""
    node = links.node
    held = node.attrs.get("scales")
    if held is None:
        scales = links.input(1 if len(node.inputs) <= 2 else 2)
        held = links.value(scales)
    if held is None or not len(held):
        return None
    axes = _scaled_axes(node, rank)
    if len(axes) != len(held):
        raise Contradiction(f"it scales {len(held)} axes of {len(axes)}")
    return dict(zip(axes, map(float, held), strict=True))


def _scaled_axes(node: gs.Node, rank: int) -> Sequence[int]:
    """Which axis each scale or size is of, from 0."""
    axes = node.attrs.get("axes")
    return [int(axis) % max(rank, 1) for axis in axes] if axes is not None else range(rank)


def amend_resize(amendment: Amendment) -> None:
    """New numbers among the sizes, where it has sizes."""
    node, y = amendment.node, amendment.node.outputs[0]
    if given(node, 3) is not None:
        retarget(amendment, 3, y, axes=_scaled_axes(node, len(amendment.shapes.shape(y) or ())))


def link_depth_to_space(links: Links) -> None:
    """A channel of the output is a whole block of b·b channels of the input."""
    _link_blocks(links, links.input(0), links.output(0))


def link_space_to_depth(links: Links) -> None:
    """A channel of the input becomes b·b channels of the output."""
    _link_blocks(links, links.output(0), links.input(0))


def _link_blocks(links: Links, deep: gs.Tensor | None, flat: gs.Tensor | None) -> None:
    if deep is None or flat is None:
        return
    links.tie((deep, 0), (flat, 0))
    channels, size = links.size(deep, 1), links.size(flat, 1)
    if channels is None or size is None:
        links.refuse("the number of its channels is not fixed")
        return
    rows_first = links.node.attrs.get("mode", "DCR") == "CRD"
    element = np.arange(channels)
    links.tie((deep, 1), (flat, 1), at=element, to=element // (channels // size) if rows_first else element % size)


RULES = {
    ("", "Pad"): Rule(link_pad),
    ("", "Resize"): Rule(link_resize, amend_resize),
    ("", "Upsample"): Rule(link_resize),
    ("", "DepthToSpace"): Rule(link_depth_to_space),
    ("", "SpaceToDepth"): Rule(link_space_to_depth),
}
