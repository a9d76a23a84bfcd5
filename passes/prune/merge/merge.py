"""Similar neurons become one: what a removed one gave to the next layer is given to its twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.merging import Merge, carry_out, choose
from onnxpress.passes.kernels.pairs import Pairs
from onnxpress.passes.prune.amounts import Limits
from onnxpress.passes.prune.merge.alike import Alike
from onnxpress.passes.prune.merge.twins import Anatomy, dissect
from onnxpress.passes.prune.removal import refit_behind, remove
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    LAZY,
    RefusalError,
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    check_globs,
    check_part,
    is_number,
    wrong,
)
from onnxpress.rewriter.couplings import Group, Member, find_couplings
from onnxpress.rewriter.couplings.ledger import Kind
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.weights import Dense, Values, values_of

WIDEST = {"weights": 32768, "activations": 8192}
"""Units of a group that are compared at most. Time grows with the square of their number; so does memory for their
values on samples, of which the products of all pairs are held, 1 GB of 8192 units."""

_HEADS = (
    "its units are heads: two that do the same may have other weights, which the distance of weights does not see; "
    "add heads to kinds, or use prune-channels"
)


@dataclass(frozen=True, kw_only=True)
class MergeNeurons(Pass):
    """Merge units that are nearly alike, without samples (Srinivas & Babu, 2015, "Data-free Parameter Pruning").

    Of each pair of units of a group of coupled channels, neurons or hidden units, the saliency is what merging them
    would change, ‖a_j‖²·‖w_j − c·w_i‖²: w is what a unit is computed from in all layers that make it, biases included,
    a what all layers that read it make of it. The pair with the least goes first; the outgoing weights of the removed
    unit are added to its twin's, times c, whose saliency grows by them. c is 1, or where everything between is
    positively homogeneous (Relu, PRelu, pooling) the best positive factor. Equal twins are merged without loss.

    Attributes:
        pruning_ratio: part of the units of each group that goes, in (0, 1).
        count: units of each group that go.
        max_error: all units go that differ from a multiple of their twin by no more, relative to themselves; 0 merges
            only equal twins.
        by: `weights`, or `activations`: units are alike whose values on samples are, times any c.
        round_to: the number of kept units of a group is a multiple of it.
        min_kept: units of a group that stay at least.
        reconstruct: then refit the layers that read the units, and all behind, by least squares on samples.
        kinds: of groups: `channels`, `neurons`, `hidden` (of recurrent layers), `heads`.
        include: globs over names of groups, or names, weights or operators of the layers that make the units.
        exclude: globs of groups that are left alone.
        ignored_layers: the same as `exclude`, as other tools call it.
    """

    name: ClassVar[str] = "merge-neurons"
    learns: ClassVar[bool] = True
    pruning_ratio: float | None = None
    count: int | None = None
    max_error: float | None = None
    by: Literal["weights", "activations"] = "weights"
    round_to: int = 1
    min_kept: int = 1
    reconstruct: bool = False
    kinds: tuple[str, ...] = ("channels", "neurons", "hidden")
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    ignored_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        check_exactly_one(self, ("pruning_ratio", "count", "max_error"))
        if self.pruning_ratio is not None:
            check_part(self, "pruning_ratio")
        if self.count is not None:
            check_count(self, "count")
        if self.max_error is not None and not (is_number(self.max_error) and 0 <= self.max_error < math.inf):
            raise wrong(self, "max_error", "be a number of at least 0")
        check_choice(self, "by", ("weights", "activations"))
        check_flag(self, "reconstruct")
        check_count(self, "round_to")
        check_count(self, "min_kept")
        for globs in ("kinds", "include", "exclude", "ignored_layers"):
            check_globs(self, globs)
        if not set(self.kinds) <= set(get_args(Kind)):
            raise wrong(self, "kinds", f"be some of {', '.join(get_args(Kind))}")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Merge units of every group that fits the options.

        Raises:
            FeedError: an option needs samples, and there are none.
        """
        if bench.feed is None and (self.by == "activations" or self.reconstruct):
            raise FeedError("merge-neurons by activations, or with reconstruct, needs samples; give some with --data")
        report, merged = self.report(), dict[Group, Merges]()
        groups, original = self._candidates(model, report), model.clone()
        alike = Alike(model, groups, bench) if self.by == "activations" else None
        for group in bench.progress.track(groups, label=self.name, total=len(groups)):
            try:
                merges = self._merges(group, dissect(group), alike)
            except RefusalError as refusal:
                report.skip(group.name, str(refusal))
                continue
            _hand_over(model, merges)
            merged[group] = merges
        removed, sizes = remove(model, {group: merges.removed for group, merges in merged.items()})
        for group, merges in merged.items():
            _tell(report, group, merges, sizes[group.name])
        if merged and self.reconstruct:
            refit_behind(model, replace(removed, original=original), bench, report)
        return report

    def _candidates(self, model: Model, report: Report) -> list[Group]:
        """Groups this pass is to work on; the others are skipped with the reason."""
        makers = _makers(find_sites(model))
        left = []
        for group in find_couplings(model).groups:
            weights = [id(each.tensor) for each in group.members if each.role == "out"]
            names = [group.name, *(name for each in weights for name in makers[each])]
            if group.frozen is not None:
                report.skip(group.name, group.frozen)
            elif not _match(names, self.include) or _match(names, (*self.exclude, *self.ignored_layers)):
                report.skip(group.name, "excluded by the recipe")
            elif group.kind not in self.kinds:
                report.skip(group.name, _HEADS if group.kind == "heads" else f"{group.kind} are not among kinds")
            elif group.size > WIDEST[self.by]:
                report.skip(group.name, f"has {group.size} units: by {self.by}, at most {WIDEST[self.by]} are compared")
            else:
                left.append(group)
        if not left:
            report.warnings.append("no group of units could be merged: `onnxpress inspect --couplings` says why")
        return left

    def _merges(self, group: Group, anatomy: Anatomy, alike: Alike | None) -> Merges:
        """What is merged in a group.

        Raises:
            RefusalError: nothing.
        """
        most, limits = self._most(group), Limits(round_to=self.round_to, min_kept=self.min_kept)
        if not most:
            raise RefusalError(f"none of {group.size} units may go by pruning_ratio, count, round_to and min_kept")
        pairs = anatomy.pairs() if alike is None else alike.pairs(group)
        outgoing = anatomy.outgoing()
        limit = math.inf if self.max_error is None else self.max_error
        steps = choose(pairs, outgoing, most=most, limit=limit)
        allowed = max(number for number in limits.removable(group) if number <= len(steps))
        if not allowed:
            raise RefusalError(_why_none(pairs, len(steps), limit))
        energy = float(outgoing.squares @ pairs.energy)
        lost = sum(each.saliency for each in steps[:allowed])
        return Merges(anatomy, steps[:allowed], math.sqrt(lost / energy) if energy else 0.0)

    def _most(self, group: Group) -> int:
        """How many units of a group may go."""
        limits = Limits(round_to=self.round_to, min_kept=self.min_kept)
        if self.max_error is not None:
            return max(limits.removable(group))
        wanted = self.count if self.count is not None else (self.pruning_ratio or 0.0) * group.size
        return limits.nearest(group, wanted)


@dataclass(frozen=True, slots=True)
class Merges:
    """What is merged in one group.

    Attributes:
        anatomy: of the group.
        steps: in order.
        error: estimated relative error of what the layers that read the units compute.
    """

    anatomy: Anatomy
    steps: Sequence[Merge]
    error: float

    @property
    def removed(self) -> NDArray[np.int64]:
        """Numbers of the units that go, ascending."""
        return np.array(sorted(each.removed for each in self.steps), np.int64)


def _hand_over(model: Model, merges: Merges) -> None:
    """Add what removed units gave to what their twins give; large weights are computed when they are written."""
    for member in merges.anatomy.readers:
        old = values_of(member.tensor)
        handed = _Handed(old, member, tuple(merges.steps))
        lazy = old.nbytes >= LAZY and not isinstance(old, Dense)
        model.replace_weight(member.tensor, handed if lazy else handed())


@dataclass(frozen=True, slots=True)
class _Handed:
    """A weight that reads units, after some were merged."""

    old: Values
    member: Member
    steps: tuple[Merge, ...]

    def __call__(self) -> Array:
        """Compute it."""
        return carry_out(self.old.load(), self.steps, axis=self.member.axis, indices=self.member.indices)


def _tell(report: Report, group: Group, merges: Merges, sizes: tuple[int, int]) -> None:
    """Report a group."""
    unlike = sum(each.factor != 1 for each in merges.steps)
    scaled = f", {unlike} of them scaled" if unlike else ""
    report.change(
        group.name,
        f"{len(merges.steps)} of {group.size} {group.kind} merged into others{scaled}, "
        f"twins differ by up to {max(each.difference for each in merges.steps):.3g}",
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        error=merges.error,
    )


def _why_none(pairs: Pairs, alike: int, limit: float) -> str:
    """Why no unit goes."""
    if alike:
        return f"{alike} units are alike enough, fewer than round_to and min_kept let go"
    some = pairs.energy > 0
    least = math.sqrt(float((pairs.nearest[some] / pairs.energy[some]).min())) if some.any() else math.inf
    return f"no two units are alike enough: the nearest differ by {least:.3g}, above max_error {limit:g}"


def _makers(sites: Sequence[Site]) -> Mapping[int, list[str]]:
    """Names by which the layers that make units are called, by the identity of their weights."""
    return {id(site.weight): [site.name, str(site.weight.name), site.op] for site in sites}


def _match(names: Sequence[str], globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in names for glob in globs)
