"""How many units of each group go: which numbers are allowed, what they gain, and how a target is shared out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from onnxpress.passes.kernels.allocation import Frontier, Option
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
        worth: of each element.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]
    worth: float

    @property
    def whole(self) -> float:
        """What all elements are worth."""
        return prod(self.shape) * self.worth

    def lost(self, removed: Mapping[int, int]) -> float:
        """What is worth the elements that are gone, given how many units of some groups are."""
        shape = list(self.shape)
        for axis, group, per_unit in self.parts:
            shape[axis] -= removed.get(group, 0) * per_unit
        return (prod(self.shape) - prod(shape)) * self.worth


class Gain:
    """What is gained where units of some groups go, as a part of what there is.

    Weights that no group touches count in the whole and are not looked at again, so asking for one group alone costs
    no more than its own weights do.
    """

    def __init__(self, extents: Sequence[_Extent], *, whole: float) -> None:
        """Sort extents by the groups that touch them.

        Args:
            extents: what groups take from.
            whole: what there is, in the same units; of nothing nothing is gained.
        """
        self._extents = [each for each in extents if each.parts]
        self._whole = whole
        self._touched: dict[int, list[_Extent]] = {}
        for extent in self._extents:
            for group in {group for _, group, _ in extent.parts}:
                self._touched.setdefault(group, []).append(extent)

    def __call__(self, removed: Sequence[int]) -> float:
        """What all groups gain together, given how many units of each go."""
        return self._part(self._extents, dict(enumerate(removed)))

    def alone(self, group: int, count: int) -> float:
        """What one group gains if `count` of its units go and nothing of the others."""
        return self._part(self._touched.get(group, ()), {group: count})

    def among(self, groups: Sequence[int]) -> Gain:
        """The same of some groups, renumbered from 0, of which alone units go."""
        number = {group: new for new, group in enumerate(groups)}
        extents = [
            replace(each, parts=tuple((axis, number[g], size) for axis, g, size in each.parts if g in number))
            for each in self._extents
        ]
        return Gain(extents, whole=self._whole)

    def _part(self, extents: Sequence[_Extent], removed: Mapping[int, int]) -> float:
        return sum(each.lost(removed) for each in extents) / self._whole if self._whole else 0.0


class Amounts:
    """What pruning gains.

    Attributes:
        groups: that may be pruned.
        units: the part of all units that goes.
        parameters: the part of all weights.
        flops: the part of the multiply-adds.
    """

    def __init__(self, model: Model, groups: Sequence[Group], work: Mapping[str, float] | None = None) -> None:
        """Look at the weights of a model.

        Args:
            model: as it is.
            groups: that may be pruned.
            work: by name of each site, how often each of its weights is multiplied; needed for multiply-adds.
        """
        self.groups = list(groups)
        self.units = counted(groups)
        parts: dict[int, list[tuple[int, int, int]]] = {}
        for number, group in enumerate(groups):
            for each in group.members:
                if each.role != "activation":
                    parts.setdefault(id(each.tensor), []).append((each.axis, number, each.indices.shape[1]))
        sites = {id(site.weight): site.name for site in find_sites(model)}
        weights = [
            (_Extent(tuple(each.shape), tuple(parts.get(id(each), ())), 1.0), sites.get(id(each), ""))
            for each in model.constants()
        ]
        self.parameters = _gain([each for each, _ in weights])
        self.flops = _gain([replace(each, worth=(work or {}).get(site, 0.0)) for each, site in weights])


def _gain(extents: Sequence[_Extent]) -> Gain:
    return Gain(extents, whole=sum(each.whole for each in extents))


def counted(groups: Sequence[Group]) -> Gain:
    """The part of the units of some groups that goes."""
    return _gain([_Extent((group.size,), ((0, number, 1),), 1.0) for number, group in enumerate(groups)])


@dataclass(frozen=True, slots=True)
class Quota:
    """What is to be gained at least.

    Attributes:
        gain: by the groups together.
        target: of that, a part of what there is.
    """

    gain: Gain
    target: float

    def met(self, removed: Sequence[int]) -> bool:
        """Whether so many units suffice."""
        return self.gain(removed) >= self.target * (1 - _SLACK)


Errors = Sequence[Callable[[int], float]]
"""Of each group, the error to expect, given how many of its units go."""


class Sharing:
    """Quotas that groups are to meet together with the least sum of errors.

    What one group gains depends on the others, for a weight between two groups shrinks with both. So the gains are
    taken alone, each as a part of its target, and the sum to reach is sought by bisection.
    """

    def __init__(self, quotas: Sequence[Quota], choices: Sequence[Sequence[int]], errors: Errors) -> None:
        """Find out what each choice gains alone, and what it costs.

        Args:
            quotas: all of them are to be met.
            choices: of each group, the allowed numbers, 0 among them.
            errors: of the groups.
        """
        self._quotas, self._choices = list(quotas), choices
        self._alone = [
            [[quota.gain.alone(number, count) for count in each] for number, each in enumerate(choices)]
            for quota in quotas
        ]
        self._errors = [[error(count) for count in each] for each, error in zip(choices, errors, strict=True)]

    def least(self, weights: Sequence[float]) -> list[int]:
        """How many units of each group go.

        Args:
            weights: that the gains of each quota have in the sum that is reached; with a negative one, less is better.

        Returns:
            The numbers; where the quotas cannot be met, as much as is allowed goes.
        """
        most = [max(each) for each in self._choices]
        if not self._met(most):
            return most
        options = self._options(weights)
        frontier = Frontier(options)
        low, high = 0.0, sum(max(option.amount for option in each) for each in options)
        best = most
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = [each[k] for each, k in zip(self._choices, frontier.least(middle), strict=True)]
            if self._met(found):
                best, high = found, middle
            else:
                low = middle
        return best

    def _met(self, removed: Sequence[int]) -> bool:
        return all(quota.met(removed) for quota in self._quotas)

    def _options(self, weights: Sequence[float]) -> list[list[Option]]:
        pairs = zip(self._alone, weights, self._quotas, strict=True)
        shares = [(alone, weight / quota.target) for alone, weight, quota in pairs if weight and quota.target > 0]
        return [
            [
                Option(sum(share * alone[number][at] for alone, share in shares), error)
                for at, error in enumerate(errors)
            ]
            for number, errors in enumerate(self._errors)
        ]
