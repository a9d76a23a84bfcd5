"""Vectors of sizes that nodes read: what ties them to other tensors, and how they change once units are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Links, Place
from onnxpress.rewriter.edits import add_node, set_input, sort
from onnxpress.rewriter.extents import TRANSPARENT, Extent, entries, readers

TARGETS: Mapping[str, int] = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Resize": 3}
"""Operators whose output is as large as one of their inputs says, and which input that is.

Their rules tie an axis whose size is read off another tensor with the axis it is read off: the one follows the other.
"""


def link_extents(links: Links, index: int, y: gs.Tensor, *, axes: Sequence[int] | None = None) -> None:
    """Tie each axis of `y` whose size is that of another axis at run time with that axis.

    Args:
        links: of the node.
        index: of the input that holds the sizes.
        y: the tensor they speak of.
        axes: which axis each entry speaks of; all in order by default.
    """
    target = links.input(index)
    traced = None if target is None else entries(target, links.shapes)
    if traced is None:
        return
    for axis, entry in zip(range(len(traced)) if axes is None else axes, traced, strict=False):
        if isinstance(entry, Extent) and links.size(entry.tensor, entry.axis) is not None:
            links.tie((entry.tensor, entry.axis), (y, axis))


def reads_size(links: Links, place: Place) -> str | None:
    """Who computes with the size of an axis that a Shape gives; None where it only says how large other tensors are."""
    x, axis = place
    pending, seen = [links.node.outputs[0]], set[int]()
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        traced = entries(tensor, links.shapes)
        if traced is not None and not any(isinstance(e, Extent) and e.tensor is x and e.axis == axis for e in traced):
            continue
        if traced is None or id(tensor) in links.outputs:
            return f"'{tensor.name}'"
        for node, index in readers(tensor):
            if node.op in (*TRANSPARENT, "Gather", "Slice", "Concat") and (index == 0 or node.op == "Concat"):
                pending.append(node.outputs[0])
            elif TARGETS.get(node.op) != index and node.op not in ("Shape", "Size"):  # these count the sizes only
                return f"{node.op} '{node.name or node.outputs[0].name}'"
    return None


def retarget(
    amendment: Amendment,
    index: int,
    y: gs.Tensor,
    *,
    axes: Sequence[int] | None = None,
    implied: Callable[[int, int], int | None] = lambda _, entry: entry,
) -> None:
    """Let the sizes that the node reads at `index` be those that `y` has from now on.

    Args:
        amendment: of the node.
        index: of the input that holds the sizes.
        y: the tensor they speak of.
        axes: which axis each entry speaks of; all in order by default.
        implied: the size that comes of a number at an axis, where the number does not say so itself.
    """
    target = amendment.node.inputs[index]
    traced = entries(target, amendment.shapes)
    rank = len(amendment.shapes.shape(y) or ())
    changed: dict[int, int] = {}
    for position, axis in enumerate(range(rank) if axes is None else axes):
        wanted, entry = amendment.size((y, axis)), None if traced is None else traced[position]
        if isinstance(entry, int):
            comes = implied(axis, entry)
        elif isinstance(entry, Extent):
            comes = amendment.size((entry.tensor, entry.axis))
        else:
            comes = amendment.was((y, axis))
        if wanted is not None and comes != wanted:
            changed[position] = wanted
    if changed:
        _write(amendment, index, target, changed)


def write_integers(amendment: Amendment, name: str, index: int, numbers: Sequence[int]) -> None:
    """Put integers where the node has them: an attribute in older operator sets, an input in newer ones."""
    node = amendment.node
    if name in node.attrs:
        node.attrs[name] = [int(each) for each in numbers]
        return
    old = node.inputs[index] if index < len(node.inputs) else None
    dtype = np.int64 if old is None or old.dtype is None else old.dtype
    hint = f"{node.name or node.op}_{name}"
    set_input(node, index, amendment.model.add_weight(hint, np.asarray(numbers, dtype)))


def _write(amendment: Amendment, index: int, target: gs.Tensor, changed: Mapping[int, int]) -> None:
    node, model = amendment.node, amendment.model
    held = amendment.value(target)
    if held is not None:
        set_input(node, index, model.add_weight(f"{node.name or node.op}_sizes", _replaced(held, changed)))
        return
    left = _write_pieces(amendment, target, changed)
    if not left:
        return
    length = len(entries(target, amendment.shapes) or ()) or max(left) + 1
    mask, sizes = np.zeros(length, np.bool_), np.zeros(length, np.int64)
    for position, size in left.items():
        mask[position], sizes[position] = True, size
    hint = f"{node.name or node.op}_sizes"
    operands = [model.add_weight(f"{hint}_known", mask), model.add_weight(f"{hint}_values", sizes), target]
    set_input(node, index, add_node(model, amendment.graph, "Where", operands, hint=hint))
    sort(amendment.graph)


def _write_pieces(amendment: Amendment, target: gs.Tensor, changed: Mapping[int, int]) -> dict[int, int]:
    """Change constants that a Concat joins for this reader alone; returns what does not lie in one."""
    left = dict(changed)
    producer = target.inputs[0] if len(target.inputs) == 1 else None
    if producer is None or producer.op != "Concat" or len(list(readers(target))) > 1 or _is_output(amendment, target):
        return left
    start = 0
    for place, piece in enumerate(producer.inputs):
        held = amendment.value(piece)
        length = len(entries(piece, amendment.shapes) or ())
        inside = {at - start: size for at, size in left.items() if start <= at < start + length}
        if held is not None and held.ndim == 1 and inside:
            hint = f"{producer.name or producer.op}_sizes"
            set_input(producer, place, amendment.model.add_weight(hint, _replaced(held, inside)))
            left = {at: size for at, size in left.items() if at - start not in inside}
        if not length:
            break
        start += length
    return left


def _is_output(amendment: Amendment, tensor: gs.Tensor) -> bool:
    return any(each is tensor for each in [*amendment.graph.outputs, *amendment.model.graph.outputs])


def _replaced(held: np.ndarray, changed: Mapping[int, int]) -> np.ndarray:
    numbers = np.array(held)
    for position, size in changed.items():
        numbers[position] = size
    return numbers
