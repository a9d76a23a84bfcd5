"""Units go, and the layers behind them are fitted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import Array, values_of

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Removed:
    """What is needed to refit a model from which units went.

    Attributes:
        original: the model as it was.
        rows: of the matrices of weights that lost outputs, those that are left, by name of the site.
        consumers: names of the sites that lost inputs.
        made_up: names of those that make up for that already.
    """

    original: Model
    rows: Mapping[str, Numbers]
    consumers: frozenset[str]
    made_up: frozenset[str]


def remove(
    model: Model, units: Mapping[Group, Numbers], *, made_up: Mapping[str, Array] | None = None
) -> tuple[Removed, dict[str, tuple[int, int]]]:
    """Take units out of a model.

    Args:
        model: in which the groups were found; it is changed.
        units: the numbers of those to go, by group.
        made_up: by name of the site, weights that make up for what goes where refitting cannot.

    Returns:
        What refitting needs, and by name of the group the bytes of its weights before and after; a weight of several
        groups counts for the first.
    """
    original = model.clone()
    for site in find_sites(model):
        if made_up and site.name in made_up:
            model.replace_weight(site.weight, made_up[site.name])
    sites = {id(site.weight): site for site in find_sites(model)}
    rows, consumers = _rows_left(sites, units), _consumers(sites, units)
    counted: set[int] = set()
    weights: dict[str, list[gs.Constant]] = {}
    for group in units:
        for member in group.members:
            if isinstance(member.tensor, gs.Constant) and id(member.tensor) not in counted:
                counted.add(id(member.tensor))
                weights.setdefault(group.name, []).append(member.tensor)
    before = {name: sum(values_of(each).nbytes for each in found) for name, found in weights.items()}
    remove_units(model, units)
    after = {name: sum(values_of(each).nbytes for each in found) for name, found in weights.items()}
    sizes = {group.name: (before.get(group.name, 0), after.get(group.name, 0)) for group in units}
    return Removed(original, rows, consumers, frozenset(made_up or ())), sizes


def refit_behind(model: Model, removed: Removed, bench: Workbench, report: Report) -> None:
    """Refit the layers that lost inputs, and all linear layers behind them.

    Args:
        model: pruned; it is changed.
        removed: what went.
        bench: brings the samples.
        report: takes the account.
    """
    sites = find_sites(model)
    behind = _behind(model, [site for site in sites if site.name in removed.consumers])
    chosen = [
        site
        for site in sites
        if any(id(use.node) in behind for use in site.uses) and site.op != "Gather" and site.name not in removed.made_up
    ]
    for name in sorted(removed.made_up):
        report.change(name, "refitted: what it reads of hidden units that went, by the others")
    refit(model, removed.original, chosen, bench, report, kept_out=removed.rows)


def _behind(model: Model, sites: Sequence[Site]) -> set[int]:
    """Identities of the nodes of some sites, and of all that read what they write."""
    outer = {
        id(inside): node
        for _, node in nodes(model.graph)
        for inner in node.attrs.values()
        if isinstance(inner, gs.Graph)
        for inside in inner.nodes
    }
    found: set[int] = set()
    waiting = [use.node for site in sites for use in site.uses]
    while waiting:
        node = waiting.pop()
        if id(node) in found:
            continue
        found.add(id(node))
        waiting += [reader for tensor in node.outputs for reader in tensor.outputs]
        if id(node) in outer:  # what a branch writes, the node around it gives
            waiting.append(outer[id(node)])
    return found


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
