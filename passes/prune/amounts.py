"""How many units of each group go: which numbers are allowed, what they gain, and how a target is shared out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnxpress.passes.kernels.allocation import Option, allocate
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

_STEPS = 20
"""Bisections by which a target is met that single groups do not add up to."""

_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Which numbers of units may be kept.

    Attributes:
        round_to: the kept elements of the axis are a multiple of it.
        min_kept: units that are kept at least.
        most: the part of the units that goes at most.
    """

    round_to: int = 1
    min_kept: int = 1
    most: float = 1.0

    def removable(self, group: Group) -> list[int]:
        """How many units may go, ascending from 0."""
        per_unit = elements(group)
        least = max(self.min_kept, group.size - int(self.most * group.size + 1e-9), 1)
        kept = [k for k in range(least, group.size) if k * per_unit % self.round_to == 0]
        return [0, *(group.size - k for k in reversed(kept))]

    def nearest(self, group: Group, wanted: float) -> int:
        """The allowed number of units to go that is nearest to `wanted`; the smaller of two."""
        return min(self.removable(group), key=lambda count: (abs(count - wanted), count))


def elements(group: Group) -> int:
    """Elements of one unit on the narrowest axis of a weight: 32 for a head of 32 channels, 1 for a unit of an LSTM."""
    weights = [each for each in group.members if each.role in ("out", "in")] or group.members[:1]
    return min(int(each.indices.shape[1]) for each in weights)


@dataclass(frozen=True, slots=True)
class _Extent:
    """One weight: its sizes, and what groups take of them.

    Attributes:
        shape: of the weight.
        parts: (axis, group, elements of one unit).
        work: multiply-adds of each of its elements in one run.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]
    work: float

    def left(self, removed: Sequence[int]) -> int:
        """Elements that are left."""
        shape = list(self.shape)
        for axis, group, per_unit in self.parts:
            shape[axis] -= removed[group] * per_unit
        return prod(shape)


class Amounts:
    """What pruning gains, in units, parameters or multiply-adds."""

    def __init__(self, model: Model, groups: Sequence[Group], work: Mapping[str, float] | None = None) -> None:
        """Look at the weights of a model.

        Args:
            model: as it is.
            groups: that may be pruned.
            work: by name of each site, how often each of its weights is multiplied; needed for multiply-adds.
        """
        self.groups = list(groups)
        parts: dict[int, list[tuple[int, int, int]]] = {}
        for number, group in enumerate(groups):
            for each in group.members:
                if each.role != "activation":
                    parts.setdefault(id(each.tensor), []).append((each.axis, number, each.indices.shape[1]))
        sites = {id(site.weight): site.name for site in find_sites(model)}
        self._extents = [
            _Extent(
                tuple(constant.shape),
                tuple(parts.get(id(constant), ())),
                (work or {}).get(sites.get(id(constant), ""), 0.0),
            )
            for constant in model.constants()
        ]

    def units(self, removed: Sequence[int]) -> float:
        """The part of the units that is gone."""
        return sum(removed) / max(1, sum(group.size for group in self.groups))

    def parameters(self, removed: Sequence[int]) -> float:
        """The part of all weights that is gone."""
        before = sum(prod(each.shape) for each in self._extents)
        return 1 - sum(each.left(removed) for each in self._extents) / max(1, before)

    def flops(self, removed: Sequence[int]) -> float:
        """The part of the multiply-adds that is gone."""
        before = sum(prod(each.shape) * each.work for each in self._extents)
        return 1 - sum(each.left(removed) * each.work for each in self._extents) / before if before else 0.0


Gained = Callable[[Sequence[int]], float]
"""What is gained by all groups together, as a part of what there is, given how many units of each go."""

Errors = Sequence[Callable[[int], float]]
"""Of each group, the error to expect, given how many of its units go."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be gained.

    Attributes:
        gained: by the groups.
        target: of that.
    """

    gained: Gained
    target: float

    def met(self, removed: Sequence[int]) -> bool:
        """Whether so many units suffice."""
        return self.gained(removed) >= self.target * (1 - _SLACK)


def share_out(goals: Sequence[tuple[Goal, float]], choices: Sequence[Sequence[int]], errors: Errors) -> list[int]:
    """How many units of each group go, so that all goals are met with the least sum of errors.

    What one group gains depends on the others, for a weight between two groups shrinks with both. So the gains are
    taken alone, each as a part of its target, and the sum to reach is sought by bisection.

    Args:
        goals: with the weight that their gains have in the sum; with a negative one, less of it is better.
        choices: of each group, the allowed numbers, 0 among them.
        errors: of the groups.

    Returns:
        The numbers; where the goals cannot be met, as much as is allowed goes.
    """
    most = [max(each) for each in choices]
    if not all(goal.met(most) for goal, _ in goals):
        return most
    weighed = [(goal, weight / goal.target) for goal, weight in goals if weight and goal.target > 0]

    def worth(number: int, count: int) -> float:
        alone = [count if each == number else 0 for each in range(len(choices))]
        return sum(weight * goal.gained(alone) for goal, weight in weighed)

    options = [
        [Option(worth(number, count), error(count)) for count in each]
        for number, (each, error) in enumerate(zip(choices, errors, strict=True))
    ]
    low, high = 0.0, sum(max(option.amount for option in each) for each in options)
    best = most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = [each[k] for each, k in zip(choices, allocate(options, middle), strict=True)]
        if all(goal.met(found) for goal, _ in goals):
            best, high = found, middle
        else:
            low = middle
    return best
