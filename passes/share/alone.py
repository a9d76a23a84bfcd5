"""What passes share that share the weights of each site by themselves, without samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, SitePass, skipping
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True)
class Shared:
    """What a weight becomes.

    Attributes:
        array: computes it, as it is stored.
        said: what a report says of it.
        error: ‖W − W'‖ / ‖W‖.
    """

    array: Callable[[], Array]
    said: str
    error: float


@dataclass(frozen=True, kw_only=True)
class AlonePass(SitePass, ABC):
    """A pass that shares the weights of each site by themselves.

    Attributes:
        min_size: weights with fewer elements are left alone.
    """

    min_size: int = 256

    @abstractmethod
    def shared(self, site: Site, *, seed: int) -> Shared:
        """What the weight of a site becomes.

        Raises:
            RefusalError: that saves nothing, changes nothing, or cannot be done.
        """

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Share the weights of every site that fits the options; what a large one becomes is promised."""
        report = self.report()
        sites = self.candidates(model, report)
        for site in bench.progress.track(sites, label=self.name, total=len(sites)):
            with skipping(report, site.name):
                found, nbytes = self.shared(site, seed=bench.seed), site.nbytes
                model.replace_weight(site.weight, found.array() if nbytes < LAZY else found.array)
                error = found.error if math.isfinite(found.error) else None
                report.change(site.name, found.said, bytes_before=nbytes, bytes_after=nbytes, error=error)
        return report
