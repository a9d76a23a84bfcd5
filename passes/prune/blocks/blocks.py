"""Whole blocks go: residual branches that do least for the outputs, found by switching them off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.prune.blocks.averages import Means, average
from onnxpress.passes.prune.blocks.branch import Branch, remove_branch
from onnxpress.passes.prune.blocks.influence import SwitchedModel
from onnxpress.passes.prune.blocks.residual import find_branches
from onnxpress.passes.prune.blocks.search import Search
from onnxpress.passes.refit import refit
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    check_globs,
    check_part,
    is_number,
    wrong,
)
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import find_sites, select
from onnxpress.rewriter.walk import nodes_behind

NOTABLE = 0.5
"""Decibels that an average in place of a branch must bring to be worth its addition."""


@dataclass(frozen=True, kw_only=True)
class PruneBlocks(Pass):
    """Remove whole residual branches, y = x + f(x) becomes y = x, those that the outputs miss least.

    Branches are those of ResNets, projections beside them too, and the attention and feed-forward parts of
    transformers. Each is switched off alone on samples, and the worst output compared; then they go one after the
    other, each time the one that leaves most decibels together with those gone already. A branch is named by its first
    linear layer. Skipping layers by how little they change: Gromov et al., 2024, "The Unreasonable Ineffectiveness of
    the Deeper Layers"; residual branches alone: Veit et al., 2016.

    Decibels are those of the worst output; of one that a Softmax or Sigmoid gives, those of what that reads, since a
    sure answer hides noise.

    Attributes:
        count: branches that go.
        pruning_ratio: part of the branches that go, in (0, 1), rounded down.
        min_sqnr: as many go as keep so many dB of signal to noise at the worst output.
        stand_in: `nothing`, or `mean`: what the branch gives on average, one number a channel, is added in its place
            where that leaves more dB.
        gates: factors computed a channel, as in squeeze and excitation, may go too; their average stands in for them.
        reconstruct: refit the linear layers behind by least squares on the samples, to give what they gave before.
        include: globs over names, weights or operators of first layers; a branch that matches none stays.
        exclude: globs over the layers of a branch; one that holds a layer that matches stays.
        ignored_layers: the same as `exclude`, as other tools call it.
    """

    name: ClassVar[str] = "prune-blocks"
    learns: ClassVar[bool] = True
    count: int | None = None
    pruning_ratio: float | None = None
    min_sqnr: float | None = None
    stand_in: Literal["nothing", "mean"] = "nothing"
    gates: bool = False
    reconstruct: bool = False
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    ignored_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        check_exactly_one(self, ("count", "pruning_ratio", "min_sqnr"))
        if self.count is not None:
            check_count(self, "count")
        if self.pruning_ratio is not None:
            check_part(self, "pruning_ratio")
        if self.min_sqnr is not None and not (is_number(self.min_sqnr) and math.isfinite(self.min_sqnr)):
            raise wrong(self, "min_sqnr", "be a number of decibels")
        check_choice(self, "stand_in", ("nothing", "mean"))
        for flag in ("gates", "reconstruct"):
            check_flag(self, flag)
        for globs in ("include", "exclude", "ignored_layers"):
            check_globs(self, globs)

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Try every branch, and remove those that are missed least.

        Raises:
            FeedError: there are no samples.
        """
        if bench.feed is None:
            raise FeedError("prune-blocks tries branches on samples; give some with --data")
        report = self.report()
        branches = self._candidates(model, report)
        if not branches:
            return report
        means = self._means(model, branches, bench)
        with SwitchedModel(model, branches, means, bench) as switched:
            if not switched.useful:
                for each in branches:
                    report.skip(each.name, "the model has no output of floating-point numbers to judge it by")
                return report
            search = Search(branches, switched, bench)
            search.run(most=self._most(branches), floor=self.min_sqnr)
            account = self._carry_out(model, search, means, bench)
        search.tell(report, means)
        if self.count is not None and len(search.chosen) < self.count:
            report.warnings.append(
                f"count {self.count} is not reached: of {len(branches)} branches {len(search.chosen)} may go"
            )
        report.changes += account.changes
        report.skips += account.skips
        return report

    def _carry_out(self, model: Model, search: Search, means: Means, bench: Workbench) -> Report:
        """Remove what was chosen, and refit what lies behind it; gives the account of that."""
        account, gone = self.report(), [search.branches[index] for index in search.chosen]
        original, behind = model.clone(), _sites_behind(model, gone)
        for branch in gone:
            _remove(model, branch, means)
        if gone and self.reconstruct:
            sweep(model)
            refit(model, original, [each for each in find_sites(model) if each.name in behind], bench, account)
            search.refitted = search.switched.compare(model)
        return account

    def _means(self, model: Model, branches: Sequence[Branch], bench: Workbench) -> Means:
        """What stands for branches on average: for all gates, and where that is asked for and leaves more dB."""
        averaged = [each for each in branches if each.gate or self.stand_in == "mean"]
        if not averaged:
            return Means({})
        means = average(model, averaged, bench)
        sums = [each for each in averaged if not each.gate]
        with SwitchedModel(model, sums, Means({}), bench) as none, SwitchedModel(model, sums, means, bench) as mean:
            worse = {each.name for index, each in enumerate(sums) if mean.sqnr([index]) < none.sqnr([index]) + NOTABLE}
        return Means({name: value for name, value in means.values.items() if name not in worse})

    def _candidates(self, model: Model, report: Report) -> list[Branch]:
        """Branches that may go; the others are skipped with the reason."""
        found, refused = find_branches(model, infer_shapes(model), gates=self.gates)
        for each in refused:
            report.skip(each.name, each.reason)
        if not found:
            report.warnings.append("no residual branch was found: there is nothing prune-blocks could remove")
        left = []
        for branch in found:
            chosen = select(branch.sites[:1], include=self.include)
            if chosen and not select(branch.sites, include=(*self.exclude, *self.ignored_layers)):
                left.append(branch)
            else:
                report.skip(branch.name, "excluded by the recipe")
        return left

    def _most(self, branches: Sequence[Branch]) -> int:
        """How many may go: of a sum of two branches only one does."""
        joins = len({id(each.join) for each in branches})
        if self.count is not None:
            return min(self.count, joins)
        return joins if self.pruning_ratio is None else int(self.pruning_ratio * joins)


def _sites_behind(model: Model, gone: Sequence[Branch]) -> set[str]:
    """Names of the linear layers that read what some joins write, also by way of others."""
    behind = nodes_behind(model.graph, [reader for branch in gone for reader in branch.join.outputs[0].outputs])
    layers = [site for site in find_sites(model) if site.op != "Gather"]
    return {site.name for site in layers if any(id(use.node) in behind for use in site.uses)}


def _remove(model: Model, branch: Branch, means: Means) -> None:
    if branch.name not in means.values:
        remove_branch(model, branch)
        return
    remove_branch(model, branch, model.add_weight(f"{branch.name}_mean", means.of(branch, branch.dtype)))
