"""Units that touch the same axes equally often, with names, roles and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.ledger import IntArray, Kind, Ledger
from onnxpress.rewriter.couplings.units import Alike, find_alike
from onnxpress.rewriter.names import NameAllocator
from onnxpress.rewriter.sites import FLOATS, Axis, Site
from onnxpress.rewriter.weights import values_of

Role = Literal["out", "in", "parameter", "activation"]
ALONE = "it is a single unit: nothing would be left"

LOOSE = 64
"""Elements from which a constant of several axes counts as a weight, though no layer that passes know has it."""

_ROLES: dict[Axis, Role] = {"out": "out", "batch": "out", "in": "in"}


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Where the units of a group lie on one axis.

    Attributes:
        tensor: a constant or a variable.
        axis: of the tensor, from 0.
        indices: int64 [units, per_unit], ascending in a row.
        role: what the axis means to the weight's site (`out`, also for independent matrices, or `in`); `parameter` of
            other constants, and of other axes of weights; `activation` of variables.
        size: elements of the axis, those of other groups included.
    """

    tensor: gs.Tensor
    axis: int
    indices: IntArray
    role: Role
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Units that are alike: they touch the same axes equally often, so any of them may go.

    Attributes:
        name: unique in the model: that of the first site that makes the units, else `tensor:axis`.
        kind: what a unit is.
        size: number of units.
        members: in graph order; row u of each member's indices is unit u.
        frozen: why no unit may go; None where units may go, as long as one is left.
        multiplied: two activations are multiplied and summed over the units (query and key without heads), so a unit
            may count though all weights that read it are zero.
    """

    name: str
    kind: Kind
    size: int
    members: tuple[Member, ...]
    frozen: str | None
    multiplied: bool = False


def build_groups(ledger: Ledger, sites: list[Site]) -> tuple[Group, ...]:
    """Groups that touch an axis of a site other than those of kernels, in graph order.

    Large constants that are no site's, of an Einsum say, are in groups too: in those of sites, or in frozen ones that
    say that no layer makes or reads them.

    Args:
        ledger: what the rules wrote.
        sites: all of the model.
    """
    meanings = {(id(s.weight), axis): (s, _ROLES[m]) for s in sites for axis, m in enumerate(s.axes) if m in _ROLES}
    wanted = {ledger.numbers[key] for key in meanings if key in ledger.numbers}
    read = {ledger.numbers[key] for key, (_, role) in meanings.items() if role == "in" and key in ledger.numbers}
    products = {place for pair in ledger.summed if read.isdisjoint(pair) for place in pair}
    loose = _loose(ledger, {id(site.weight) for site in sites})
    names = NameAllocator(())
    found = []
    everything = find_alike(ledger, sorted(wanted | {place for places in loose for place in places}))
    shown = _shown(ledger, everything, wanted, loose)
    for alike in everything:
        if shown.isdisjoint(alike.rows):
            continue
        members = _members(ledger, alike, meanings)
        known = not wanted.isdisjoint(alike.rows)
        if known and len(members) == 1 and members[0].size == 1:
            continue  # one channel within each group of a convolution: nothing that anybody would want to remove
        sites_behind = [(meanings[id(m.tensor), m.axis][0], m.axis) for m in members if m.role == "out"]
        makers = [site for site, axis in sites_behind if site.axes[axis] == "out"]
        first = members[0]
        frozen = None if known else _unknown(members)
        if alike.kept is not None:
            frozen = ledger.kept[alike.kept][2]
        elif len(first.indices) == 1:
            frozen = ALONE
        name = names.fresh(makers[0].name if makers else f"{first.tensor.name}:{first.axis}")
        kind = _kind(ledger, alike, members, meanings)
        found.append(Group(name, kind, len(first.indices), members, frozen, not products.isdisjoint(alike.rows)))
    return tuple(found)


def _loose(ledger: Ledger, sited: set[int]) -> list[list[int]]:
    """Places of each large floating-point constant that is no site's weight."""
    found: dict[int, list[int]] = {}
    for number, (tensor, _) in enumerate(ledger.places):
        if isinstance(tensor, gs.Constant) and id(tensor) not in sited:
            found.setdefault(id(tensor), []).append(number)
    tensors = {key: values_of(ledger.places[numbers[0]][0]) for key, numbers in found.items()}
    return [
        numbers
        for key, numbers in found.items()
        if tensors[key].dtype.name in FLOATS
        and len(tensors[key].shape) > 1
        and np.prod(tensors[key].shape, dtype=np.int64) >= LOOSE
    ]


def _shown(ledger: Ledger, everything: list[Alike], wanted: set[int], loose: list[list[int]]) -> set[int]:
    """Places whose groups are worth telling: of sites, of weights that are summed over, of what is nowhere else."""
    covered = {place for alike in everything if not wanted.isdisjoint(alike.rows) for place in alike.rows}
    summed = {place for pair in ledger.summed for place in pair}
    shown = set(wanted)
    for places in loose:
        if covered.isdisjoint(places) or not summed.isdisjoint(places):
            shown.update(place for place in places if ledger.sizes[place] > 1)
    return shown


def _unknown(members: tuple[Member, ...]) -> str:
    """Why units go nowhere that no site makes or reads."""
    tensor = next(each.tensor for each in members if isinstance(each.tensor, gs.Constant))
    readers = [f" of {node.op} '{node.name or node.outputs[0].name}'" for node in tensor.outputs[:1]]
    return f"no layer that passes know makes or reads them: '{tensor.name}' is a constant{''.join(readers)}"


def _members(ledger: Ledger, alike: Alike, meanings: Mapping[tuple[int, int], tuple[Site, Role]]) -> tuple[Member, ...]:
    found = []
    for place, indices in alike.rows.items():
        tensor, axis = ledger.places[place]
        role: Role = "parameter" if isinstance(tensor, gs.Constant) else "activation"
        if (id(tensor), axis) in meanings:
            role = meanings[id(tensor), axis][1]
        found.append(Member(tensor, axis, indices, role, ledger.sizes[place]))
    return tuple(found)


def _kind(
    ledger: Ledger, alike: Alike, members: tuple[Member, ...], meanings: Mapping[tuple[int, int], tuple[Site, Role]]
) -> Kind:
    """What a unit is, as a rule said; otherwise as the weights that make it show."""
    said = next((ledger.kinds[place] for place in alike.rows if place in ledger.kinds), None)
    if said is not None:
        return said
    weights = [m for m in members if m.role == "out"] or [m for m in members if m.role == "in"]
    if any("Conv" in meanings[id(m.tensor), m.axis][0].op for m in weights):
        return "channels"
    rows = [m.indices for m in weights if m.role == "out"]
    # the features of a head lie side by side; the two halves of a gated unit do not
    if rows and all(row.shape[1] > 1 and np.all(row[:, 1] == row[:, 0] + 1) for row in rows):
        return "heads"
    return "neurons"
