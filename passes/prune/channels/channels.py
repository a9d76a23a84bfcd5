"""Structured pruning: channels, neurons, heads and hidden units go; the model gets smaller, and faster everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, get_args

import numpy as np

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.prune.amounts import Amounts, Limits
from onnxpress.passes.prune.channels.account import curve_of, tell, too_few
from onnxpress.passes.prune.channels.hidden import made_up
from onnxpress.passes.prune.channels.plan import Candidate, UnitCriterion, judge
from onnxpress.passes.prune.channels.ranking import DATA_FREE, Importance
from onnxpress.passes.prune.channels.sharing import Allocation, Target, shares
from onnxpress.passes.prune.channels.work import work_of
from onnxpress.passes.prune.removal import refit_behind, remove
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    check_globs,
    check_part,
    wrong,
)
from onnxpress.rewriter.couplings import Group, find_couplings
from onnxpress.rewriter.couplings.ledger import Kind
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Pass):
    """Remove channels, neurons, attention heads and hidden units, with all weights that belong to them.

    What must go together is found from the graph (`rewriter.couplings`), so residual connections, concatenations,
    depthwise and grouped convolutions stay right. With samples, the units go whose loss costs the layers that read
    them least once their other weights make up for it, more of them where that harms the outputs of the model less;
    then all linear layers behind are refitted by least squares (He et al., 2017, "Channel Pruning"). Without samples,
    those of smallest norm go (Li et al., 2017), the same part everywhere, and nothing makes up for them.

    Attributes:
        pruning_ratio: the part of the `target` that goes, in (0, 1).
        count: instead, how many units of each group go.
        target: what the ratio is a part of: `units`, counted for channels, neurons, heads and hidden units apart;
            `parameters`; or `flops`, the multiply-adds of linear layers.
        round_to: what is kept of an axis is a multiple of it; 8 is what processors like, 1 leaves it open.
        min_kept: units that are kept of each group.
        max_pruning_ratio: the part of a group that goes at most; by default 1.5 times `pruning_ratio`, up to 0.9.
        importance: `l1`, `l2`, `geometric-median` (He et al., 2019) look at weights; `activation` and `apoz` (Hu et
            al., 2016) at what the next layers read; `thinet` (Luo et al., 2017) at what their sums miss; `output` at
            what they miss after compensation. By default `output` with samples, `l2` without.
        allocation: `error` shares the ratio out such that the outputs suffer least, `uniform` takes the same part of
            each group. By default `error` with samples, `uniform` without.
        global_pruning: one threshold of importance for all groups, instead.
        kinds: of units that may go: `channels`, `neurons`, `heads`, `hidden`.
        ignored_layers: globs over site, weight or operator names; outputs of these layers stay, inputs may go.
        reconstruct: refit the layers behind; by default where there are samples.
        sensitivity: try what the loss of each group's units does to the outputs of the model, for the allocation and
            the curves of the report; without it, all layers count alike.
    """

    name: ClassVar[str] = "prune-channels"
    learns: ClassVar[bool] = True
    pruning_ratio: float | None = None
    count: int | None = None
    target: Target = "units"
    round_to: int = 8
    min_kept: int = 1
    max_pruning_ratio: float | None = None
    importance: Importance | None = None
    allocation: Allocation | None = None
    global_pruning: bool = False
    kinds: tuple[str, ...] = get_args(Kind)
    ignored_layers: tuple[str, ...] = ()
    reconstruct: bool | None = None
    sensitivity: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        check_exactly_one(self, ("pruning_ratio", "count"))
        for field in ("pruning_ratio", "max_pruning_ratio"):
            if getattr(self, field) is not None:
                check_part(self, field)
        if self.count is not None:
            check_count(self, "count")
        for field in ("round_to", "min_kept"):
            check_count(self, field)
        check_choice(self, "target", get_args(Target))
        if self.importance is not None:
            check_choice(self, "importance", get_args(Importance))
        if self.allocation is not None:
            check_choice(self, "allocation", get_args(Allocation))
        for field in ("global_pruning", "sensitivity"):
            check_flag(self, field)
        if self.reconstruct is not None:
            check_flag(self, "reconstruct")
        check_globs(self, "kinds")
        check_globs(self, "ignored_layers")
        if not self.kinds or not set(self.kinds) <= set(get_args(Kind)):
            raise wrong(self, "kinds", f"hold some of {', '.join(get_args(Kind))}")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        most = self.max_pruning_ratio
        if self.pruning_ratio is not None and most is not None and self.pruning_ratio > most:
            raise wrong(self, "pruning_ratio", f"be at most max_pruning_ratio {most:g}")
        if self.global_pruning and self.allocation not in (None, "global"):
            raise wrong(self, "allocation", "be left out, for global_pruning means one threshold")
        if self.count is not None and (self.global_pruning or self.allocation or self.target != "units"):
            raise ConfigError(
                f"{self.name}: count {self.count} is taken from each group; leave out target, allocation and "
                "global_pruning, or give pruning_ratio"
            )

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune the groups that the options choose.

        Raises:
            FeedError: an option needs samples, and there are none.
        """
        self._check_samples(bench)
        report = self.report()
        limits = Limits(round_to=self.round_to, min_kept=self.min_kept, most=self._most())
        groups = self._chosen(model, limits, report)
        if not groups:
            return report
        candidates = judge(model, groups, self._criterion(limits, bench), bench)
        report.curves.extend(curve_of(each) for each in candidates)
        counts = self._counts(model, candidates, limits, bench, report)
        units = {
            each.group: np.sort(each.ranking.order[:count])
            for each, count in zip(candidates, counts, strict=True)
            if count
        }
        recurrent = made_up(model, units, bench) if self._refits(bench) else None
        removed, sizes = remove(model, units, made_up=recurrent)
        for each, count in zip(candidates, counts, strict=True):
            if count:
                tell(each, count, sizes, report)
            else:
                report.skip(each.group.name, self._why_whole(each, bench))
        if units and self._refits(bench):
            refit_behind(model, removed, bench, report)
        return report

    def _check_samples(self, bench: Workbench) -> None:
        if bench.feed is not None:
            return
        if self.importance not in (None, *DATA_FREE):
            advice = f"give some with --data, or choose {', '.join(DATA_FREE)}"
            raise FeedError(f"{self.name}: importance {self.importance!r} comes from samples; {advice}")
        if self.reconstruct:
            raise FeedError(f"{self.name}: reconstruct refits layers on samples; give some with --data")
        if self.allocation == "error":
            raise FeedError(f"{self.name}: allocation 'error' tries samples; give some with --data, or choose uniform")

    def _most(self) -> float:
        """The part of a group that goes at most; by default no group is left much narrower than the others."""
        if self.max_pruning_ratio is not None:
            return self.max_pruning_ratio
        return 1.0 if self.pruning_ratio is None else max(self.pruning_ratio, min(0.9, 1.5 * self.pruning_ratio))

    def _refits(self, bench: Workbench) -> bool:
        return bench.feed is not None if self.reconstruct is None else self.reconstruct

    def _criterion(self, limits: Limits, bench: Workbench) -> UnitCriterion:
        seen = bench.feed is not None
        return UnitCriterion(
            importance=self.importance or ("output" if seen else "l2"),
            limits=limits,
            ratio=0.25 if self.pruning_ratio is None else self.pruning_ratio,
            refitted=self._refits(bench),
            trials=seen and self.sensitivity,
        )

    def _chosen(self, model: Model, limits: Limits, report: Report) -> list[Group]:
        """Groups that may lose units; the others are skipped with the reason."""
        ignored = self._ignored(model, report)
        found = []
        for group in find_couplings(model).groups:
            made = [ignored[id(m.tensor)] for m in group.members if m.role == "out" and id(m.tensor) in ignored]
            if group.frozen is not None:
                report.skip(group.name, group.frozen)
            elif group.kind not in self.kinds:
                report.skip(group.name, f"its units are {group.kind}, which kinds leaves out")
            elif made:
                report.skip(group.name, f"its units are outputs of '{made[0]}', which ignored_layers names")
            elif len(limits.removable(group)) < 2:
                report.skip(group.name, too_few(group, limits))
            else:
                found.append(group)
        return found

    def _ignored(self, model: Model, report: Report) -> Mapping[int, str]:
        """Names of the sites that are ignored, by identity of the weight."""
        found: dict[int, str] = {}
        for glob in self.ignored_layers:
            named = [s for s in find_sites(model) if any(fnmatchcase(n, glob) for n in (s.name, s.weight.name, s.op))]
            found |= {id(site.weight): site.name for site in named}
            if not named:
                report.warnings.append(f"ignored_layers: {glob!r} names no layer; see `onnxpress inspect`")
        return found

    def _counts(
        self, model: Model, candidates: Sequence[Candidate], limits: Limits, bench: Workbench, report: Report
    ) -> list[int]:
        """How many units of each group go.

        Raises:
            ConfigError: the target cannot be counted.
        """
        if self.pruning_ratio is None:
            return self._counted([each.group for each in candidates], limits, report)
        work = work_of(model, bench)
        if self.target == "flops" and not any(work.values()):
            raise ConfigError(f"{self.name}: target 'flops' counts no layers in branches, and there are no others")
        amounts = Amounts(model, [each.group for each in candidates], work)
        counts = shares(
            candidates,
            amounts,
            ratio=self.pruning_ratio,
            target=self.target,
            allocation=self._allocation(bench),
            limits=limits,
        )
        part = getattr(amounts, self.target)(counts)
        if part < self.pruning_ratio and all(n == each.choices[-1] for n, each in zip(counts, candidates, strict=True)):
            report.warnings.append(
                f"pruning_ratio {self.pruning_ratio:g} of the {self.target} is not reached, only {part:.3g}: more may "
                "not go of any group; raise max_pruning_ratio, or lower min_kept or round_to"
            )
        return counts

    def _counted(self, groups: Sequence[Group], limits: Limits, report: Report) -> list[int]:
        """The count of each group, or the nearest number that may go."""
        wanted = self.count or 0
        if short := [each.name for each in groups if wanted > limits.removable(each)[-1]]:
            report.warnings.append(
                f"count {wanted} is more than may go of {len(short)} of {len(groups)} groups ({short[0]}, …): these "
                "keep the least that round_to, min_kept and max_pruning_ratio allow"
            )
        return [limits.nearest(each, float(wanted)) for each in groups]

    def _allocation(self, bench: Workbench) -> Allocation:
        if self.global_pruning:
            return "global"
        return self.allocation or ("uniform" if bench.feed is None else "error")

    def _why_whole(self, candidate: Candidate, bench: Workbench) -> str:
        """Why nothing goes of a group of which something might."""
        group, least = candidate.group, candidate.choices[1]
        reason = "the ratio is met at less cost by other groups"
        if self.count is not None or self._allocation(bench) == "uniform":
            wanted = f"count {self.count}" if self.count is not None else f"pruning_ratio {self.pruning_ratio:g}"
            reason = f"{least} of them would have to go at least, and none is nearer to {wanted}"
        return f"keeps its {group.size} {group.kind}: {reason}"
