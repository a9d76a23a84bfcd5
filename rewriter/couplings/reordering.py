"""Giving the units of groups another order: constants are permuted, nodes stay as they are, and so do the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.rewriter.couplings.engine import write_ledger
from onnxpress.rewriter.couplings.groups import Group
from onnxpress.rewriter.couplings.ledger import IntArray, Ledger
from onnxpress.rewriter.couplings.removal import check_groups, slice_values
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import values_of


def reorder_units(model: Model, orders: Mapping[Group, IntArray]) -> None:
    """Put the units of groups in another order, in place; the outputs of the model stay equal.

    What lies between the layers holds the same numbers in another order, so sums may be rounded otherwise. Whether
    every node only passes the new order on is proved from what the rules tied, element by element.

    Args:
        model: in which the groups were found. They fit it afterwards, too.
        orders: by group, the number of the unit that comes to the place of each: [units].

    Raises:
        ModelError: a group is frozen, an order is none of its units, the groups were found in another model, or a node
            ties elements so that the new order would not pass. The model is as it was.
    """
    for group, order in orders.items():
        _check(group, np.asarray(order))
    check_groups(model, orders)
    moved = _moved(orders)
    blocker = next(_blockers(write_ledger(model)[0], moved), None) if moved else None
    if blocker is not None:
        raise ModelError(_tied(*blocker))
    by_tensor: dict[int, tuple[gs.Tensor, dict[int, IntArray]]] = {}
    for (_, axis), (tensor, source) in moved.items():
        if isinstance(tensor, gs.Constant):
            by_tensor.setdefault(id(tensor), (tensor, {}))[1][axis] = source
    for tensor, axes in by_tensor.values():
        model.replace_weight(tensor, slice_values(values_of(tensor), axes))


def reasons_to_stay(model: Model, groups: Iterable[Group]) -> dict[Group, str]:
    """Of groups whose units cannot take just any order, why.

    Args:
        model: in which the groups were found.
        groups: to ask about.
    """
    asked = list(groups)
    found = {group: group.frozen for group in asked if group.frozen is not None}
    ledger = write_ledger(model)[0] if len(found) < len(asked) else Ledger()
    for group in asked:
        if group not in found:
            every = np.arange(group.size)
            # These two generate all orders, and what two orders keep, one after the other keeps.
            swap = np.concatenate([every[:2][::-1], every[2:]])
            for order in (swap, np.roll(every, 1)):
                for tensor, axis in _blockers(ledger, _moved({group: order})):
                    found.setdefault(group, _tied(tensor, axis))
    return found


def _check(group: Group, order: IntArray) -> None:
    if group.frozen is not None:
        raise ModelError(f"no unit of '{group.name}' can change places: {group.frozen}")
    if order.dtype.kind not in "iu" or not np.array_equal(np.sort(order), np.arange(group.size)):
        raise ModelError(f"an order of '{group.name}' has each of its {group.size} units once, numbered from 0")


def _tied(tensor: gs.Tensor, axis: int) -> str:
    return f"axis {axis} of '{tensor.name}' is tied so that its units cannot change places"


_Moved = dict[tuple[int, int], tuple[gs.Tensor, IntArray]]
"""By identity of the tensor, and axis: the tensor, and which old element comes to the place of each."""


def _moved(orders: Mapping[Group, IntArray]) -> _Moved:
    found: _Moved = {}
    for group, order in orders.items():
        for member in group.members:
            _, source = found.setdefault((id(member.tensor), member.axis), (member.tensor, np.arange(member.size)))
            source[member.indices.reshape(-1)] = member.indices[np.asarray(order)].reshape(-1)
    return {key: each for key, each in found.items() if np.any(np.diff(each[1]) != 1)}


def _blockers(ledger: Ledger, moved: _Moved) -> Iterator[tuple[gs.Tensor, int]]:
    """Places with ties that the new order does not keep.

    An operator gives its result in the new order if, of each pair of tied elements, those that come to their places
    are tied, too.
    """
    source = {ledger.numbers[key]: each for key, (_, each) in moved.items() if key in ledger.numbers}

    def of(place: int) -> IntArray:
        return source[place] if place in source else np.arange(ledger.sizes[place])

    for first, second in ledger.whole:
        if (first in source or second in source) and not np.array_equal(of(first), of(second)):
            yield ledger.places[first]
    for first, at, second, to in ledger.parts:
        if first in source or second in source:
            size = ledger.sizes[second]
            before, after = np.unique(at * size + to), np.unique(of(first)[at] * size + of(second)[to])
            if not np.array_equal(before, after):
                yield ledger.places[first]
    for place, labels in ledger.united:
        if place in source and not _same_parts(labels, labels[source[place]]):
            yield ledger.places[place]
    for place, frozen, _ in ledger.kept:
        if place in source:
            stay = np.arange(ledger.sizes[place]) if frozen is None else frozen
            if not np.array_equal(source[place][stay], stay):
                yield ledger.places[place]


def _same_parts(first: IntArray, second: IntArray) -> bool:
    """Whether two labellings part elements alike."""
    pairs: NDArray[np.int64] = np.unique(np.stack([first, second]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(first)) == len(np.unique(second)))
