"""Units go, and the layers behind them are fitted anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.base import Workbench
from onnxpress.passes.refit import refit
from onnxpress.passes.report import Report
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.couplings import Group, remove_units
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.walk import nodes_behind
from onnxpress.rewriter.weights import Array, values_of

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MadeUp:
    """What becomes of weights that no refit sees, for it cannot observe what they read.

    Attributes:
        weights: by name of the site, those that make up for what goes.
        refused: by name of the site, why there is none.
    """

    weights: Mapping[str, Array] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Removed:
    """What is needed to refit a model from which units went.

    Attributes:
        original: the model as it was.
        rows: of the matrices of weights that lost outputs, those that are left, by name of the site.
        consumers: names of the sites that lost inputs.
        made_up: which of them make up for that already, and which cannot.
    """

    original: Model
    rows: Mapping[str, Numbers]
    consumers: frozenset[str]
    made_up: MadeUp


def remove(
    model: Model, units: Mapping[Group, Numbers], *, made_up: MadeUp | None = None
) -> tuple[Removed, dict[str, tuple[int, int]]]:
    """Take units out of a model.

    Args:
        model: in which the groups were found; it is changed.
        units: the numbers of those to go, by group.
        made_up: weights that make up for what goes where refitting cannot.

    Returns:
        What refitting needs, and by name of the group the bytes of its weights before and after; a weight of several
        groups counts for the one whose units it makes, else for the first.
    """
    original, made_up = model.clone(), made_up or MadeUp()
    for site in find_sites(model):
        if site.name in made_up.weights:
            model.replace_weight(site.weight, made_up.weights[site.name])
    sites = {id(site.weight): site for site in find_sites(model)}
    rows, consumers = _rows_left(sites, units), _consumers(sites, units)
    weights = _weights(units)
    before = {name: sum(values_of(each).nbytes for each in found) for name, found in weights.items()}
    remove_units(model, units)
    after = {name: sum(values_of(each).nbytes for each in found) for name, found in weights.items()}
    sizes = {group.name: (before.get(group.name, 0), after.get(group.name, 0)) for group in units}
    return Removed(original, rows, consumers, made_up), sizes


def _weights(units: Iterable[Group]) -> dict[str, list[gs.Constant]]:
    """Each constant once, by name of the group for which it counts."""
    members = [(group.name, member) for group in units for member in group.members]
    members.sort(key=lambda each: each[1].role != "out")
    counted: set[int] = set()
    weights: dict[str, list[gs.Constant]] = {}
    for name, member in members:
        if isinstance(member.tensor, gs.Constant) and id(member.tensor) not in counted:
            counted.add(id(member.tensor))
            weights.setdefault(name, []).append(member.tensor)
    return weights


def refit_behind(model: Model, removed: Removed, bench: Workbench, report: Report) -> None:
    """Refit the layers that lost inputs, and all linear layers behind them.

    Args:
        model: pruned; it is changed.
        removed: what went.
        bench: brings the samples.
        report: takes the account.
    """
    sites = find_sites(model)
    lost = [use.node for site in sites if site.name in removed.consumers for use in site.uses]
    behind = nodes_behind(model.graph, lost)
    made_up = removed.made_up
    settled = {*made_up.weights, *made_up.refused}
    chosen = [
        site
        for site in sites
        if any(id(use.node) in behind for use in site.uses) and site.op != "Gather" and site.name not in settled
    ]
    for name in sorted(made_up.weights):
        report.change(name, "refitted: what it reads of hidden units that went, by the others")
    for name, reason in sorted(made_up.refused.items()):
        report.skip(name, f"is not refitted: {reason}")
    refit(model, removed.original, chosen, bench, report, kept_out=removed.rows)


def _rows_left(sites: Mapping[int, Site], units: Mapping[Group, Numbers]) -> dict[str, Numbers]:
    """Rows of the matrices that stay, of the sites that lose outputs."""
    gone: dict[int, NDArray[np.bool_]] = {}
    for group, chosen in units.items():
        for member in group.members:
            site = sites.get(id(member.tensor))
            if site is None or member.role != "out":
                continue
            lost = np.zeros(site.shape[member.axis], np.bool_)
            lost[member.indices[chosen].ravel()] = True
            shape = [1] * len(site.shape)
            shape[member.axis] = -1
            rows = Layout.of(site).to_rows(np.broadcast_to(lost.reshape(shape), site.shape))[:, 0]
            gone[id(member.tensor)] = gone.get(id(member.tensor), np.zeros(len(rows), np.bool_)) | rows
    return {sites[key].name: np.flatnonzero(~rows).astype(np.int64) for key, rows in gone.items()}


def _consumers(sites: Mapping[int, Site], units: Mapping[Group, Numbers]) -> frozenset[str]:
    return frozenset(
        sites[id(member.tensor)].name
        for group in units
        for member in group.members
        if member.role == "in" and id(member.tensor) in sites
    )
