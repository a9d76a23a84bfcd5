"""Second moments of what layers read, a few at a time, for methods that weigh the error of a layer's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxpress.calibration.observers import SecondMoment
from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.blocked import layout_of
from onnxpress.passes.inputs import MEMORY, Reading, in_parts, joined, moment_bytes, observe_readings, reading_of
from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use


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
    def sizes(self) -> dict[Reading, int]:
        """Bytes of the moments of each reading."""
        return moment_bytes(self.sites[0], self.readings, layout_of(self.sites[0]).rows)


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
    for part in in_parts(wanted, MEMORY, sizes=lambda bundle: bundle.sizes):
        observers = {r: SecondMoment(view=r.view) for bundle in part for r in bundle.readings}
        observe_readings(model, observers, bench)
        for bundle in part:
            try:
                if bundle.readings:
                    bundle.moment = joined([observers[each] for each in bundle.readings]).total
            except RefusalError as refusal:
                bundle.reason = str(refusal)
            yield bundle
            bundle.moment = None
