"""`share-budget` for one size after another, with all that does not depend on the size measured once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.report import Report
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.sharing import Sharing
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, kw_only=True)
class MeasuredOnce(Pass):
    """Does what `how` does, and reports as it would.

    Attributes:
        how: the size, and what is tried of the weights.
        before: which model it works on; a name for it.
        known: what was measured, by that name; gets more.
    """

    name: ClassVar[str] = ShareBudget.name
    learns: ClassVar[bool] = True
    how: ShareBudget
    before: str
    known: dict[tuple[str, object], Sharing]

    def options(self) -> dict[str, object]:
        """Those of `how`."""
        return self.how.options()

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune and share.

        Raises:
            ConfigError: the size cannot be met; says what can.
        """
        key = self.before, (self.how.tried, self.how.include, self.how.exclude, self.how.min_size)
        if key not in self.known:
            self.known[key] = self.how.measure(model.clone(), bench)
        found = self.known[key].at(bytes=self.how.bytes, ratio=self.how.ratio, bits=self.how.bits)
        model.reset(found.model.skeleton())
        found.report.options = self.options()
        return found.report
