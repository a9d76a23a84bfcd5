"""Operators that look at the same elements through other axes, or repeat them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Links, Place, Rule
from onnxpress.rewriter.couplings.rules.alignment import Block, align, steps
from onnxpress.rewriter.couplings.rules.sizes import link_extents, reads_size, retarget, write_integers
from onnxpress.rewriter.extents import Extent, entries, extent_range, given, integers, option


def link_reshape(links: Links) -> None:
    """Blocks of axes that hold the same elements are folds of each other."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    before = [_token(size, (id(x), axis)) for axis, size in enumerate(links.shapes.shape(x) or ())]
    after = [_token(size, (id(y), axis)) for axis, size in enumerate(links.shapes.shape(y) or ())]
    target = links.input(1)
    copies = not links.node.attrs.get("allowzero", 0)
    for axis, entry in enumerate((entries(target, links.shapes) if target is not None else None) or ()):
        if entry == 0 and copies and axis < len(before):
            after[axis] = before[axis]
        elif isinstance(entry, Extent) and entry.tensor is x:
            after[axis] = before[entry.axis]
    link_blocks(links, align(before, after))
    link_extents(links, 1, y)


def _token(size: int | str | None, place: tuple[int, int]) -> object:
    return place if size is None else size


def link_blocks(links: Links, blocks: Sequence[Block]) -> None:
    """Write the folds of a node that only groups its axes differently."""
    x, y = links.node.inputs[0], links.node.outputs[0]
    for block in blocks:
        factors = _factors(links, block) if block.exact else None
        if factors is not None:
            for place, parts in factors:
                links.fold(place, parts)
            continue
        reason = "regroups it with others" if block.exact else "merges it with axes whose size is not fixed"
        for place in [*((x, axis) for axis in block.old), *((y, axis) for axis in block.new)]:
            links.keep(place, f"{links.title} {reason}")
    for tensor in (x, y):
        for axis, size in enumerate(links.sizes(tensor)):
            if size == 1:
                links.keep((tensor, axis), f"{links.title} needs axis {axis} of '{tensor.name}' to be 1")


def _factors(links: Links, block: Block) -> list[tuple[Place, list[Place | int]]] | None:
    """Axes that are products, with what they are products of.

    Both sides are cut where either is: [2048, 64] -> [512, 256] is [512·4, 64] -> [512, 4·64]. None where the cuts do
    not nest.
    """
    x, y = links.node.inputs[0], links.node.outputs[0]
    if len(block.old) == len(block.new) == 1:
        return [((x, block.old[0]), [(y, block.new[0])])]
    ends = ((x, block.old), (y, block.new))
    sides = [[((tensor, axis), links.size(tensor, axis) or 0) for axis in axes] for tensor, axes in ends]
    inner = [steps([size for _, size in side]) for side in sides]
    cuts = sorted({*inner[0], *inner[1]}, reverse=True)
    total = int(np.prod([size for _, size in sides[0]], dtype=np.int64))
    if any(outer % cut for outer, cut in zip([total, *cuts], cuts, strict=False)):
        return None
    strides = [
        (each, at) for side, starts in zip(sides, inner, strict=True) for each, at in zip(side, starts, strict=True)
    ]
    alone = {(at, size): place for (place, size), at in strides}
    found = []
    for (place, size), at in strides:
        within = [cut for cut in cuts if at <= cut < at * size]
        pairs = [(cut, outer // cut) for outer, cut in zip([at * size, *within], within, strict=False)]
        if len(pairs) > 1:
            found.append((place, [alone.get(pair, pair[1]) for pair in pairs]))
    return found


def amend_reshape(amendment: Amendment) -> None:
    """New numbers in the target shape, where it names a size that is another now."""
    node = amendment.node
    x, y = node.inputs[0], node.outputs[0]
    copies = not node.attrs.get("allowzero", 0)

    def implied(axis: int, entry: int) -> int | None:
        if entry == -1:
            return amendment.size((y, axis))  # what is left
        return amendment.size((x, axis)) if entry == 0 and copies else entry

    if len(node.inputs) > 1:
        retarget(amendment, 1, y, implied=implied)


def link_flatten(links: Links) -> None:
    """Axes before `axis` become one, those from `axis` on the other."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    axis = int(links.node.attrs.get("axis", 1))
    axis += rank if axis < 0 else 0
    sizes = links.sizes(x)
    blocks = []
    for part, ends in enumerate((range(axis), range(axis, rank))):
        wide = tuple(each for each in ends if sizes[each] != 1)
        if wide:
            blocks.append(Block(wide, (part,), exact=True))
    link_blocks(links, blocks)


def link_transpose(links: Links) -> None:
    """Axis `perm[i]` of the input is axis i of the output."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    perm = links.node.attrs.get("perm", range(rank)[::-1])
    if not len(perm) == rank == links.rank(y):
        links.refuse("its result has another rank than it should")
        return
    for axis, source in enumerate(perm):
        links.tie((x, int(source)), (y, axis))


def link_squeeze(links: Links) -> None:
    """Axes of size 1 go, the others stay in order."""
    _link_dropped(links, wide=links.input(0), narrow=links.output(0))


def link_unsqueeze(links: Links) -> None:
    """The reverse of Squeeze."""
    _link_dropped(links, wide=links.output(0), narrow=links.input(0))


def _link_dropped(links: Links, *, wide: gs.Tensor | None, narrow: gs.Tensor | None) -> None:
    if wide is None or narrow is None:
        return
    rank = links.rank(wide)
    axes = option(links.node, "axes", 1, links.shapes)
    if axes is None:
        if links.input(1) is not None or links.rank(narrow) != sum(size != 1 for size in links.sizes(wide)):
            links.refuse("its axes are computed")
            return
        axes = [axis for axis, size in enumerate(links.sizes(wide)) if size == 1]
    dropped = {links.axis(wide, axis) for axis in axes}
    rest = [axis for axis in range(rank) if axis not in dropped]
    if len(rest) != links.rank(narrow):
        links.refuse("its result has another rank than it should")
        return
    for other, axis in enumerate(rest):
        links.tie((wide, axis), (narrow, other))
    for axis in dropped:
        links.keep((wide, axis), f"{links.title} needs axis {axis} of '{wide.name}' to be 1")


def amend_squeeze(amendment: Amendment) -> None:
    """Without axes it drops every axis of size 1: name those that it dropped before, lest a shorter one joins them."""
    node, model = amendment.node, amendment.model
    x = node.inputs[0]
    sizes = amendment.shapes.shape(x) or ()
    shrunk = any(size != 1 and amendment.size((x, axis)) == 1 for axis, size in enumerate(sizes))
    if not shrunk or "axes" in node.attrs or given(node, 1) is not None:
        return
    axes = [axis for axis, size in enumerate(sizes) if size == 1]
    if model.opset < 13:
        node.attrs["axes"] = axes
    else:
        write_integers(amendment, "axes", 1, axes)


def link_expand(links: Links) -> None:
    """Aligned from the right; an axis that is repeated may become any size."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    offset = links.rank(y) - links.rank(x)
    if offset < 0:
        links.refuse("its result has another rank than it should")
        return
    for axis, size in enumerate(links.sizes(y)):
        if axis < offset:
            links.leave((y, axis))
        elif links.size(x, axis - offset) == 1 and size != 1:
            links.leave((x, axis - offset))
            links.leave((y, axis))
        else:
            links.tie((x, axis - offset), (y, axis))
    link_extents(links, 1, y)


def amend_expand(amendment: Amendment) -> None:
    """New numbers in the target shape."""
    x, y = amendment.node.inputs[0], amendment.node.outputs[0]
    offset = len(amendment.shapes.shape(y) or ()) - len(amendment.shapes.shape(x) or ())

    def implied(axis: int, entry: int) -> int | None:
        return amendment.size((x, axis - offset)) if entry == 1 and axis >= offset else entry

    retarget(amendment, 1, y, implied=implied)


def link_constant_of_shape(links: Links) -> None:
    """All elements are equal, so an axis may become any size."""
    y = links.output(0)
    if y is not None:
        for axis in range(links.rank(y)):
            links.leave((y, axis))
        link_extents(links, 0, y)


def amend_constant_of_shape(amendment: Amendment) -> None:
    """New numbers in the shape."""
    retarget(amendment, 0, amendment.node.outputs[0])


def link_tile(links: Links) -> None:
    """Element e of a repeated axis is element e mod n of the input's; one element repeated may become any size."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    repeats = integers(links.input(1), links.shapes)
    for axis in range(links.rank(x)):
        before, after = links.size(x, axis), links.size(y, axis)
        if before is None or after is None:
            for tensor in (x, y):
                links.keep((tensor, axis), f"{links.title} repeats an axis whose size is not fixed")
        elif before == 1 and after != 1 and repeats is not None:
            links.leave((x, axis))
            links.leave((y, axis))
        else:
            links.tie((y, axis), (x, axis), to=np.arange(after) % before)


def amend_tile(amendment: Amendment) -> None:
    """New numbers of repetitions of single elements."""
    x, y = amendment.node.inputs[0], amendment.node.outputs[0]
    repeats = integers(amendment.node.inputs[1], amendment.shapes)
    if repeats is None:
        return
    new = [
        amendment.size((y, axis)) or old if amendment.was((x, axis)) == 1 and old != 1 else old
        for axis, old in enumerate(repeats)
    ]
    if new != repeats:
        write_integers(amendment, "repeats", 1, new)


def link_shape(links: Links) -> None:
    """The sizes of axes: they may change where they only say how large other tensors are."""
    x = links.input(0)
    if x is None:
        return
    given = extent_range(links.node, links.rank(x))
    for axis in range(links.rank(x)):
        reader = reads_size(links, (x, axis)) if axis in given and links.size(x, axis) is not None else None
        if reader is None:
            links.leave((x, axis))
        else:
            links.keep((x, axis), f"{reader} computes with the size of axis {axis} of '{x.name}'")


RULES = {
    ("", "Reshape"): Rule(link_reshape, amend_reshape),
    ("", "Flatten"): Rule(link_flatten),
    ("", "Transpose"): Rule(link_transpose),
    ("", "Squeeze"): Rule(link_squeeze, amend_squeeze),
    ("", "Unsqueeze"): Rule(link_unsqueeze),
    ("", "Expand"): Rule(link_expand, amend_expand),
    ("", "ConstantOfShape"): Rule(link_constant_of_shape, amend_constant_of_shape),
    ("", "Tile"): Rule(link_tile, amend_tile),
    ("", "Shape"): Rule(link_shape),
}
