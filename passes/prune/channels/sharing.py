"""How much of each group goes: by the noise to expect, the same part of each, or one threshold for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.prune.amounts import Amounts, Gain, Limits, Quota, Sharing, counted
from onnxpress.passes.prune.channels.plan import Candidate

Allocation: TypeAlias = Literal["error", "uniform", "global"]
Target: TypeAlias = Literal["units", "parameters", "flops"]

_STEPS = 40
"""Bisections of a threshold."""

_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 8.0)
"""Of units beside multiply-adds, tried in turn."""


def shares(
    candidates: Sequence[Candidate],
    amounts: Amounts,
    *,
    ratio: float,
    target: Target,
    allocation: Allocation,
    limits: Limits,
) -> list[int]:
    """How many units of each group go.

    Args:
        candidates: the groups.
        amounts: of the same groups, what is gained.
        ratio: the part of the target that goes at least, as far as the limits allow.
        target: what `ratio` is a part of. `units` are counted for each kind of unit apart; shared out by error, at
            least that part of them goes, and saves at least as many multiply-adds as the same part of each group.
        allocation: `error` for the least noise, `uniform` for the same part of each group, `global` for one threshold.
        limits: which numbers may go.
    """
    if target != "units":
        gain = amounts.parameters if target == "parameters" else amounts.flops
        return _shared(candidates, Quota(gain, ratio), None, allocation, limits)
    counts = [0] * len(candidates)
    for kind in dict.fromkeys(each.group.kind for each in candidates):
        chosen = [number for number, each in enumerate(candidates) if each.group.kind == kind]
        part = [candidates[number] for number in chosen]
        units = Quota(counted([each.group for each in part]), ratio)
        found = _shared(part, units, amounts.flops.among(chosen), allocation, limits)
        for number, count in zip(chosen, found, strict=True):
            counts[number] = count
    return counts


def _shared(
    candidates: Sequence[Candidate], quota: Quota, flops: Gain | None, allocation: Allocation, limits: Limits
) -> list[int]:
    """Share one quota out; with `flops`, save as many multiply-adds as the same part of each group would."""
    if allocation == "global":
        return _below_threshold(candidates, quota, limits)
    even = partial(_even, candidates, limits)
    if allocation == "uniform":
        return even(quota.target) if flops is not None else _least(even, quota)
    return _by_error(candidates, quota, None if flops is None else Quota(flops, flops(even(quota.target))), even)


def _even(candidates: Sequence[Candidate], limits: Limits, part: float) -> list[int]:
    return [limits.nearest(each.group, part * each.group.size) for each in candidates]


def _below_threshold(candidates: Sequence[Candidate], quota: Quota, limits: Limits) -> list[int]:
    ranked = [(each.group, each.ranking.scores) for each in candidates]
    thresholds = np.unique(np.concatenate([scores for _, scores in ranked]))

    def below(part: float) -> list[int]:
        threshold = thresholds[min(len(thresholds) - 1, int(part * len(thresholds)))]
        return [limits.nearest(group, float((scores <= threshold).sum())) for group, scores in ranked]

    return _least(below, quota)


def _least(made: Callable[[float], list[int]], quota: Quota) -> list[int]:
    """What the least part, 0 to 1, makes that meets the quota."""
    low, high = 0.0, 1.0
    best = made(1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = made(middle)
        if quota.met(found):
            best, high = found, middle
        else:
            low = middle
    return best


def _by_error(
    candidates: Sequence[Candidate], quota: Quota, work: Quota | None, even: Callable[[float], list[int]]
) -> list[int]:
    usual = _usual_gain(candidates)
    errors = [partial(each.noise, gain=usual) for each in candidates]
    choices = [each.choices for each in candidates]
    if work is None or work.target <= 0:
        return Sharing([quota], choices, errors).least([1.0])
    sharing = Sharing([work, quota], choices, errors)
    found = [sharing.least([1.0, weight]) for weight in _WEIGHTS]
    found.append(even(quota.target))
    met = [each for each in found if quota.met(each) and work.met(each)] or found
    return min(met, key=lambda removed: sum(error(count) for error, count in zip(errors, removed, strict=True)))


def _usual_gain(candidates: Sequence[Candidate]) -> float:
    known = [each.gain for each in candidates if each.gain is not None]
    return float(np.median(known)) if known else 1.0
