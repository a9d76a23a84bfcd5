"""Passes in order, on one copy of the model, with the graph checked after each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.idle import WHOLE, why_idle
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.invariants import Interface, InvariantError, check
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """A new model and the account of every pass."""

    model: Model
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A sequence of passes; normalisation comes first unless it is among them.

    Attributes:
        passes: in order.
        normalise: put a default `Normalise` before them if they bring none.
    """

    passes: Sequence[Pass]
    normalise: bool = field(default=True, kw_only=True)

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
        return PipelineResult(copy, tuple(reports))

    def order(self) -> list[Pass]:
        """The passes that run, in order."""
        has_own = any(isinstance(each, Normalise) for each in self.passes)
        first: list[Pass] = [] if has_own or not self.normalise else [Normalise()]
        return [*first, *self.passes]
