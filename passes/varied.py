"""Samples for passes that learn from them, varied where they are few."""

from __future__ import annotations

from dataclasses import replace

from onnxpress.calibration.variations import with_variations
from onnxpress.passes.base import Workbench
from onnxpress.passes.report import Report
from onnxpress.passes.row_sums import ROWS
from onnxpress.rewriter.model import Model


def with_varied(model: Model, bench: Workbench, report: Report, *, rows: int = ROWS) -> Workbench:
    """The same bench with variations behind the samples, where these hold few tokens; the report says so.

    Args:
        model: reads the samples.
        bench: may have none.
        report: takes the warning.
        rows: tokens that are enough.
    """
    if bench.feed is None:
        return bench
    varied = with_variations(model, bench.feed, rows=rows, seed=bench.seed)
    if varied.copies:
        report.warnings.append(
            f"the samples hold {varied.tokens} tokens, which is few: {varied.copies} variations of each teach, too; "
            "more samples of your own do better"
        )
    return replace(bench, feed=varied.feed)
