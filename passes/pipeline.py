"""Passes in order, on one copy of the model, with the graph checked after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.idle import WHOLE, why_idle
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.report import Report
from onnxpress.passes.shown import frame, grid
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.invariants import Interface, InvariantError, check
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """A new model and the account of every pass."""

    model: Model
    reports: tuple[Report, ...]

    def __repr__(self) -> str:
        lines = [f"{each.name}: {len(each.changes)} changed, {len(each.skips)} left alone" for each in self.reports]
        return f"<{'; '.join(lines)}>"

    def _repr_html_(self) -> str:
        rows = [
            [each.name, str(len(each.changes)), str(len(each.skips)), f"{each.seconds:.2f} s"] for each in self.reports
        ]
        notes = [f"{each.name}: {line}" for each in self.reports for line in [*each.notes, *each.warnings]]
        return frame(grid("passes", ("pass", ">changed", ">left alone", ">took"), rows, notes))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A sequence of passes; normalisation comes first unless it is among them.

    Attributes:
        passes: in order.
        normalise: put a default `Normalise` before them if they bring none.
        after: called after each pass with the model as it is by then, which it must not change, and the pass's report.
    """

    passes: Sequence[Pass]
    normalise: bool = field(default=True, kw_only=True)
    after: Callable[[Model, Report], None] | None = field(default=None, kw_only=True)

    def __call__(self, model: Model, bench: Workbench | None = None) -> PipelineResult:
        """Run the passes on a copy of `model`.

        Raises:
            InvariantError: a pass left a broken graph.
            OnnxpressError: what a pass raises.
        """
        bench, copy, reports = bench or Workbench(), model.clone(), []
        interface = Interface.of(copy)
        for each in bench.progress.track(self.order(), label="passes"):
            began = time.perf_counter()
            report = each.apply(copy, each.fitting(bench))
            sweep(copy)
            report.seconds = time.perf_counter() - began
            if not (report.changes or report.skips or isinstance(each, Normalise)):
                report.skip(WHOLE, why_idle(copy))
            reports.append(report)
            try:
                check(copy, interface)
            except InvariantError as error:
                raise InvariantError(f"after {each.name}: {error}") from error
            if self.after is not None:
                self.after(copy, report)
        return PipelineResult(copy, tuple(reports))

    def order(self) -> list[Pass]:
        """The passes that run, in order."""
        has_own = any(isinstance(each, Normalise) for each in self.passes)
        first: list[Pass] = [] if has_own or not self.normalise else [Normalise()]
        return [*first, *self.passes]
