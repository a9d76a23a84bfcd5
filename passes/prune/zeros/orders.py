"""Layers whose inputs may be put in another order, so that N:M groups hold what suits them.

Inputs of a layer are units of a group of coupled axes. Where all of these may change places, and no other layer reads
them that minds the order, too, the constants on both sides of the layer take any order, and the model computes what it
did (Pool and Yu, "Channel Permutations for N:M Sparsity", 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.permutation import IntArray, group_order, kept_by_groups
from onnxpress.passes.prune.zeros.patterns import NofM
from onnxpress.rewriter.couplings import Group, Member, find_couplings, reasons_to_stay, reorder_units
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_ROUNDS = 30
"""Of the search; what later ones gain is little."""

_ROWS = 192
"""Outputs of a layer whose scores tell for all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Orders of the inputs of some layers, to be given to the model together at the end.

    Until then masks are of the layers as they stand, so that nothing that was computed with them becomes void.

    Attributes:
        pattern: of the sites.
        groups: of units that are the inputs of a site, one a column.
        reasons: why the inputs of other sites keep their order.
        seed: of the search.
        chosen: by group, the number of the unit that comes to the place of each.
        kept: by site, the part of what its weights are worth that the pattern keeps, before and after.
    """

    pattern: NofM
    groups: Mapping[Site, Group]
    reasons: Mapping[Site, str]
    seed: int = 0
    chosen: dict[Group, IntArray] = field(default_factory=dict)
    kept: dict[Site, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, sites: Sequence[Site], pattern: NofM, *, seed: int = 0) -> Orders:
        """Which of the sites can have their inputs in another order.

        Args:
            model: holds the sites.
            sites: whose weights are to have the pattern.
            pattern: the pattern.
            seed: of the search.
        """
        found: dict[Site, Group] = {}
        reasons: dict[Site, str] = {}
        readers = _readers(find_couplings(model).groups, sites)
        for site in sites:
            known = [group for group, behind in readers.items() if site in behind]
            reason = _reason(site, known, readers)
            if reason is None:
                found[site] = known[0]
            else:
                reasons[site] = reason
        stay = reasons_to_stay(model, found.values())
        reasons |= {site: stay[group] for site, group in found.items() if group in stay}
        return cls(pattern, {site: group for site, group in found.items() if group not in stay}, reasons, seed)

    def choose(self, site: Site, scores: Array) -> IntArray | None:
        """The order of inputs in which the pattern costs a site least; None for the one they have.

        Args:
            site: one of those that were asked for.
            scores: what each weight is worth, [out, k], not negative.
        """
        group = self.groups.get(site)
        whole = float(scores.sum())
        if group is None or not 0 < whole < np.inf:
            return None
        keep, size = self.pattern.keep, self.pattern.group
        some = np.unique(np.linspace(0, len(scores) - 1, _ROWS).astype(np.int64))
        order = group_order(scores[some], keep=keep, group=size, rounds=_ROUNDS, seed=self.seed)
        before, after = (kept_by_groups(each, keep=keep, group=size) / whole for each in (scores, scores[:, order]))
        if after <= before:
            return None
        self.kept[site] = before, after
        column = _inputs(site, group)[0].indices[:, 0]
        self.chosen[group] = np.argsort(column)[order[column]]
        return order

    def phrase(self, site: Site) -> str:
        """What became of the order of a site's inputs, to stand behind what became of its weights."""
        if site in self.kept:
            before, after = self.kept[site]
            return f" with its inputs in another order, where {after:.1%} rather than {before:.1%} of their worth stays"
        return f" with its inputs in their order ({self.reasons.get(site, 'no other is better')})"

    def apply(self, model: Model) -> None:
        """Put the units of all groups for which an order was chosen in that order."""
        reorder_units(model, self.chosen)


def _inputs(site: Site, group: Group) -> list[Member]:
    return [each for each in group.members if each.tensor is site.weight and each.role == "in"]


def _readers(groups: Iterable[Group], sites: Sequence[Site]) -> dict[Group, set[Site]]:
    """By group, the sites whose inputs are units of it."""
    by_weight = {id(site.weight): site for site in sites}
    read = ((group, [each for each in group.members if each.role == "in"]) for group in groups)
    return {group: {by_weight[id(each.tensor)] for each in ins if id(each.tensor) in by_weight} for group, ins in read}


def _reason(site: Site, groups: Sequence[Group], readers: Mapping[Group, set[Site]]) -> str | None:
    """Why a site cannot have its inputs in another order, as far as its own groups tell."""
    frozen = next((group.frozen for group in groups if group.frozen is not None), None)
    if frozen is not None:
        return frozen
    if len(groups) != 1:
        return "they belong to several groups of coupled axes"
    if len(readers[groups[0]]) > 1:
        return "other layers with the pattern read them, too"
    members = _inputs(site, groups[0])
    columns = site.size // max(1, site.shape[site.axis("out")])
    if len(members) != 1 or members[0].indices.shape != (columns, 1):
        return "several of its columns have to go together"
    return None
