"""The search for branches that a model misses least: greedy, tried again after each that goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.errors import noise_at
from onnxpress.passes.prune.blocks.averages import Means
from onnxpress.passes.prune.blocks.branch import Branch
from onnxpress.passes.prune.blocks.influence import SwitchedModel
from onnxpress.passes.report import Curve, Report
from onnxpress.rewriter.weights import values_of

TRIED = 6
"""Branches tried at each step: those that cost least when they were tried last."""


@dataclass(slots=True)
class Search:
    """The search for branches that are missed least.

    Attributes:
        branches: that may go.
        switched: tells what is left without some of them.
        bench: is told about the progress.
        alone: dB that are left without each of them.
        chosen: indices of those that go, in order.
        course: dB that are left after each of them.
        latest: dB that are left without each one and those that had gone when it was tried last.
        refitted: dB that are left once the layers behind were refitted.
    """

    branches: Sequence[Branch]
    switched: SwitchedModel
    bench: Workbench
    alone: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    course: list[float] = field(default_factory=list)
    latest: dict[int, tuple[float, int]] = field(default_factory=dict)
    refitted: float | None = None

    def run(self, *, most: int, floor: float | None) -> None:
        """Choose up to `most` branches, each time the one that leaves most dB; none that leaves less than `floor`."""
        indices = range(len(self.branches))
        tracked = self.bench.progress.track(indices, label="blocks alone", total=len(indices))
        self.alone = [self.switched.sqnr([index]) for index in tracked]
        cost = {index: noise_at(self.alone[index]) for index in indices if index not in self.switched.unlike}
        before = 0.0
        for _ in self.bench.progress.track(range(most), label="blocks", total=most):
            free = [index for index, noise in cost.items() if math.isfinite(noise) and self._hindrance(index) is None]
            tried = {
                index: self.switched.sqnr([*self.chosen, index]) for index in sorted(free, key=cost.__getitem__)[:TRIED]
            }
            self.latest |= {index: (sqnr, len(self.chosen)) for index, sqnr in tried.items()}
            cost |= {index: noise_at(sqnr) - before for index, sqnr in tried.items()}
            best = max(tried, key=tried.__getitem__, default=None)
            if best is None or tried[best] == -math.inf or (floor is not None and tried[best] < floor):
                break
            self.chosen.append(best)
            self.course.append(tried[best])
            before = noise_at(tried[best])

    def tell(self, report: Report, means: Means) -> None:
        """Report every branch, and the course of the search."""
        gone: dict[int, gs.Constant] = {}
        for index, branch in enumerate(self.branches):
            if index not in self.chosen:
                report.skip(branch.name, self._reason(index))
        for step, index in enumerate(self.chosen):
            branch = self.branches[index]
            own = {id(each): each for each in branch.constants if id(each) not in gone}
            gone |= own
            stand_in = means.values.get(branch.name)
            report.change(
                branch.name,
                self._action(step),
                bytes_before=sum(int(values_of(each).nbytes) for each in own.values()),
                bytes_after=0 if stand_in is None else stand_in.size * branch.dtype.itemsize,
            )
        if self.chosen:
            joins = len({id(each.join) for each in self.branches})
            ratios = tuple(step / joins for step in range(1, len(self.chosen) + 1))
            report.curves.append(Curve("blocks", "blocks", ratios, tuple(self.course), "outputs"))

    def _action(self, step: int) -> str:
        """What was done at one step."""
        index = self.chosen[step]
        branch, last = self.branches[index], step + 1 == len(self.chosen)
        kind = "gate" if branch.gate else "branch"
        alone, after = f"{self.alone[index]:.1f} dB without it alone", f"{self.course[step]:.1f} dB after {step + 1}"
        refitted = f", {self.refitted:.1f} dB once refitted" if self.refitted is not None and last else ""
        return f"{kind} of {len(branch.nodes)} nodes removed: {alone}, {after}{refitted}"

    def _hindrance(self, index: int) -> str | None:
        """Why a branch cannot go once others have."""
        branch = self.branches[index]
        for other in (self.branches[each] for each in self.chosen):
            if other is branch or other.holds(branch):
                return f"went with '{other.name}'"
            if other.join is branch.join:
                return f"is all that is left of the sum without '{other.name}'"
        return None

    def _reason(self, index: int) -> str:
        """Why a branch stays."""
        if index in self.switched.unlike:
            return f"without it '{self.branches[index].join.outputs[0].name}' has another shape on these samples"
        hindrance = self._hindrance(index)
        if hindrance is not None:
            return hindrance
        reason = f"kept: {self.alone[index]:.1f} dB would be left without it alone"
        sqnr, others = self.latest.get(index, (0.0, 0))
        return f"{reason}, {sqnr:.1f} dB without it and {others} that went" if others else reason
