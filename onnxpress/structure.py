"""Which axes of which weights are one dimension, as people read it: groups of coupled axes, and a picture of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxpress.rewriter.couplings import Group, Member, find_couplings
from onnxpress.rewriter.couplings.drawing import to_dot, to_svg
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

DRAWINGS = {".svg": to_svg, ".dot": to_dot}
"""How couplings are drawn, by the ending of the file."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a group is on one axis of one tensor.

    Attributes:
        tensor: its name.
        layer: of the weight; None of other tensors.
        axis: from 0.
        role: `out`, `in`, `parameter` or `activation`.
        per_unit: elements of the axis that go with a unit.
        size: elements of the axis.
    """

    tensor: str
    layer: str | None
    axis: int
    role: str
    per_unit: int
    size: int


@dataclass(frozen=True, slots=True)
class Coupling:
    """Units that can only go together, everywhere at once.

    Attributes:
        name: by which recipes choose it.
        kind: what a unit is: `channels`, `neurons`, `heads`, `hidden`.
        units: how many.
        producers: layers that make them.
        consumers: layers that read them.
        nbytes: of all constants that go if all units go.
        frozen: why no unit may go; None where units may.
        members: in graph order.
    """

    name: str
    kind: str
    units: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    nbytes: int
    frozen: str | None
    members: tuple[Part, ...]


def couplings_of(model: Model, sites: Sequence[Site]) -> tuple[Coupling, ...]:
    """All groups of a model, in graph order."""
    names = {id(site.weight): site.name for site in sites}
    return tuple(_coupling(group, names) for group in find_couplings(model).groups)


def _coupling(group: Group, names: Mapping[int, str]) -> Coupling:
    members = tuple(
        Part(each.tensor.name, names.get(id(each.tensor)), each.axis, each.role, each.indices.shape[1], each.size)
        for each in group.members
    )
    return Coupling(
        name=group.name,
        kind=group.kind,
        units=group.size,
        producers=_layers(members, "out"),
        consumers=_layers(members, "in"),
        nbytes=_nbytes(group.members),
        frozen=group.frozen,
        members=members,
    )


def _layers(members: Sequence[Part], role: str) -> tuple[str, ...]:
    found = (each.layer for each in members if each.role == role and each.layer is not None)
    return tuple(dict.fromkeys(found))


def _nbytes(members: Sequence[Member]) -> int:
    """Bytes of constants: of a tensor that loses elements of several axes, what lies in any of them."""
    kept: dict[int, list[float]] = {}
    tensors = {id(each.tensor): each.tensor for each in members if each.role != "activation"}
    for each in members:
        if id(each.tensor) in tensors:
            kept.setdefault(id(each.tensor), []).append(1 - each.indices.size / each.size)
    return sum(round(values_of(tensors[key]).nbytes * (1 - math.prod(shares))) for key, shares in kept.items())


def check_drawing(path: Path) -> None:
    """Refuse a picture of a kind that nobody draws, before the work begins.

    Raises:
        ConfigError: another ending than .svg and .dot.
    """
    if path.suffix.lower() not in DRAWINGS:
        raise ConfigError(f"drawing {path}: name a file that ends in {' or '.join(DRAWINGS)}")


def draw(model: Model, kind: Path) -> str:
    """A picture of the couplings of a model.

    Args:
        model: normalised, as passes see it.
        kind: the file that the picture is meant for; its ending decides.

    Raises:
        ConfigError: another ending than .svg and .dot.
    """
    check_drawing(kind)
    return DRAWINGS[kind.suffix.lower()](model, find_couplings(model).groups)
