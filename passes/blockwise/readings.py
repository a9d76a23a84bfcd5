"""Second moments of what layers read, a few at a time, for methods that weigh the error of a layer's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.calibration.observers import SecondMoment
from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.blocked import layout_of
from onnxpress.passes.inputs import Reading, observe_readings, reading_of
from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use

MEMORY = 1 << 30
"""Bytes of moments held at once; with more of them the samples run several times."""


@dataclass(slots=True, eq=False)
class Bundle:
    """Sites that read the same activation in the same way.

    Attributes:
        sites: all of them.
        readings: what they read; of a weight that several layers share, several. Empty where nothing can be observed.
        reason: why not.
        moment: Σ x·xᵀ, float32 [groups, k, k], while the bundle is worked on; None where nothing was seen.
    """

    sites: list[Site]
    readings: tuple[Reading, ...]
    reason: str = ""
    moment: Floats | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its moments."""
        site = self.sites[0]
        length = site.size // layout_of(site).rows
        return len(self.readings) * site.groups * length * length * 4


@dataclass(slots=True)
class _Batch:
    bundles: list[Bundle] = field(default_factory=list)
    nbytes: int = 0


def bundles(model: Model, sites: Sequence[Site]) -> list[Bundle]:
    """Sites by what they read, in graph order."""
    found: dict[tuple[Reading, ...], Bundle] = {}
    alone: list[Bundle] = []
    for site in sites:
        try:
            readings = tuple(dict.fromkeys(reading_of(model, use) for use in _multiplying(site)))
        except RefusalError as refusal:
            alone.append(Bundle([site], (), str(refusal)))
            continue
        if not readings:
            alone.append(Bundle([site], (), "a table is looked up, not multiplied"))
        elif readings in found:
            found[readings].sites.append(site)
        else:
            found[readings] = Bundle([site], readings)
    return [*found.values(), *alone]


def _multiplying(site: Site) -> list[Use]:
    """The users that multiply by the rows which get blocks, not by a transposed matrix."""
    axes = layout_of(site).axes
    return [use for use in site.uses if use.node.op != "Gather" and use.axes == axes]


def with_moments(model: Model, wanted: Sequence[Bundle], bench: Workbench) -> Iterator[Bundle]:
    """Give each bundle its moment while it is worked on.

    Args:
        model: in float, as it runs; not changed meanwhile.
        wanted: of the same model, or of a clone of it.
        bench: brings the samples.

    Raises:
        FeedError: there are no samples.
    """
    for batch in _batches(wanted):
        observers = {r: SecondMoment(view=r.view) for bundle in batch for r in bundle.readings}
        if observers:
            observe_readings(model, observers, bench)
        for bundle in batch:
            seen = [observers[each] for each in bundle.readings if not observers[each].empty]
            shapes = {each.total.shape for each in seen}
            if len(shapes) == 1:
                bundle.moment = np.sum([each.total for each in seen], axis=0) if len(seen) > 1 else seen[0].total
            elif not bundle.reason:
                bundle.reason = "its layers read rows of several lengths" if seen else "the samples never reached it"
            yield bundle
            bundle.moment = None


def _batches(wanted: Sequence[Bundle]) -> Iterator[list[Bundle]]:
    batch = _Batch()
    for bundle in wanted:
        if batch.bundles and batch.nbytes + bundle.nbytes > MEMORY:
            yield batch.bundles
            batch = _Batch()
        batch.bundles.append(bundle)
        batch.nbytes += bundle.nbytes
    if batch.bundles:
        yield batch.bundles
