"""What passes share that share the weights of each site by themselves, without samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from onnxpress.passes.base import Workbench
from onnxpress.passes.jobs import Refusing, Stored, accepted, each
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, SitePass, skipping
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Values, values_of


@dataclass(frozen=True, slots=True)
class Shared:
    """What a weight becomes.

    Attributes:
        array: computes it from what is stored; a `partial` of a function of a module, so that workers can send it.
        said: what a report says of it.
        error: ‖W − W'‖ / ‖W‖.
    """

    array: Callable[[Array], Array]
    said: str
    error: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What a worker found; the weight itself only where it is small."""

    shared: Shared
    array: Array | None

    def written(self, old: Values) -> Array | Callable[[], Array]:
        """What takes the place of the old values."""
        return self.array if self.array is not None else lambda: self.shared.array(old.load())


@dataclass(frozen=True, kw_only=True)
class AlonePass(SitePass, ABC):
    """A pass that shares the weights of each site by themselves, on as many workers as there are.

    Attributes:
        min_size: weights with fewer elements are left alone.
    """

    min_size: int = 256

    @abstractmethod
    def shared(self, weight: Stored, *, seed: int) -> Shared:
        """What a weight becomes.

        Raises:
            RefusalError: that saves nothing, changes nothing, or cannot be done.
        """

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Share the weights of every site that fits the options; what a large one becomes is promised."""
        report = self.report()
        sites = self.candidates(model, report)
        weights = (Stored.of(site) for site in sites)
        work = Refusing(partial(_found, self, seed=bench.seed))
        results = each(work, weights, progress=bench.progress, label=self.name, total=len(sites))
        for site, result in zip(sites, results, strict=True):
            with skipping(report, site.name):
                found, nbytes = accepted(result), site.nbytes
                model.replace_weight(site.weight, found.written(values_of(site.weight)))
                error = found.shared.error if math.isfinite(found.shared.error) else None
                report.change(site.name, found.shared.said, bytes_before=nbytes, bytes_after=nbytes, error=error)
        return report


def _found(owner: AlonePass, weight: Stored, *, seed: int) -> _Found:
    shared = owner.shared(weight, seed=seed)
    return _Found(shared, shared.array(weight.array) if weight.array.nbytes < LAZY else None)
