"""What a report says of groups of units: what to expect of them, what was done, and why nothing can be."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.prune.amounts import Limits, elements
from onnxpress.passes.prune.channels.plan import Candidate
from onnxpress.passes.report import Curve, Report
from onnxpress.rewriter.couplings import Group

_POINTS = 8
"""A curve has a point at each of so many equal parts of a group."""


def too_few(group: Group, limits: Limits) -> str:
    """Why no unit of a group may go."""
    kept = [f"max_pruning_ratio {limits.most:g}"] if limits.most < 1 else []
    if limits.min_kept > 1:
        kept.append(f"min_kept {limits.min_kept}")
    if limits.round_to > 1:
        per_unit = elements(group)
        kept.append(f"round_to {limits.round_to}" + (f" (a unit has {per_unit} elements)" if per_unit > 1 else ""))
    return f"none of its {group.size} {group.kind} may go with {' and '.join(kept)}"


def curve_of(candidate: Candidate) -> Curve:
    """What to expect at each part of a group that may go."""
    group, tried = candidate.group, candidate.gain is not None
    last = candidate.choices[-1]
    counts = sorted({min(last, math.ceil(part * group.size / _POINTS)) for part in range(1, _POINTS)})
    share = 1.0 if tried else 1 / candidate.ranking.consumers
    return Curve(
        site=group.name,
        unit=group.kind,
        ratios=tuple(count / group.size for count in counts),
        errors=tuple(decibels(share * candidate.noise(count)) for count in counts),
        where="outputs" if tried else "layer",
    )


def tell(candidate: Candidate, count: int, sizes: Mapping[str, tuple[int, int]], report: Report) -> None:
    """Report what went of a group.

    Args:
        candidate: the group.
        count: units that went.
        sizes: bytes of its weights before and after, by its name.
        report: takes the change.
    """
    group, ranking = candidate.group, candidate.ranking
    before, after = sizes[group.name]
    error = math.sqrt(float(ranking.errors[count]) / ranking.consumers) if ranking.observed else None
    report.change(
        group.name,
        f"{count} of {group.size} {group.kind} removed{_note(candidate)}",
        bytes_before=before,
        bytes_after=after,
        error=error if error is not None and math.isfinite(error) else None,
    )


def _note(candidate: Candidate) -> str:
    """What was to be judged by samples and was not, and why."""
    if candidate.unseen is not None:
        return f"; by the size of weights: {candidate.unseen}"
    if candidate.untried is not None:
        return f"; what that does to the outputs was not measured: {candidate.untried}"
    return ""
