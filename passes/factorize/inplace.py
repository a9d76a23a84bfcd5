"""Which chains make the whole model faster: those that do not are taken back, the least promising first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.blanks import with_blanks
from onnxpress.passes.factorize.latency import as_is
from onnxpress.passes.factorize.offers import Choice, gain_of
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.pace import Pace, pace
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

GROUPS = 10
"""Groups of chains that are timed at most in one go; chains of layers of one geometry are decided on together."""

_SECONDS = 2.0
"""For each pair of models that is timed, and each provider."""

_ROUNDS = 400
_TOGETHER = 8
"""Rounds at most, and how many of them count as one."""


@dataclass(slots=True)
class InPlace:
    """Times a model with and without chains, before these are fitted.

    Attributes:
        model: without any.
        bench: brings batches to time with, providers and threads.
        ended: whether time is up: then nothing more is timed.
        timed_as: makes what is timed of a model in float.
        kept: names of sites and schemes that were measured to be faster.
        refused: what was measured of those that were not.
    """

    model: Model
    bench: Workbench
    ended: Callable[[], bool] = lambda: False
    timed_as: Callable[[Model], Model] = as_is
    kept: set[tuple[str, str]] = field(default_factory=set)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    def settle(self, choice: Choice) -> Choice:
        """What is left of a choice once all that makes the model no faster is taken back."""
        left = {name: offer for name, offer in choice.items() if (name, offer.scheme.name) not in self.refused}
        for group in self._groups(left):
            if self.ended():
                break
            without = {name: offer for name, offer in left.items() if name not in group}
            found = self._pace(without, left)
            keys = {(name, left[name].scheme.name) for name in group}
            if found.slower:
                self.refused |= dict.fromkeys(keys, f"the whole model is {found.describe('without it')}")
                left = without
            else:
                self.kept |= keys
        return left

    def speedup(self, choice: Choice) -> Pace:
        """How fast the model is with a choice beside the model without any."""
        return self._pace({}, choice)

    def _pace(self, before: Choice, after: Choice) -> Pace:
        pair = [with_blanks(self.model, {name: (o.scheme, o.ranks) for name, o in c.items()}) for c in (before, after)]
        return timed(self.timed_as(pair[0]), self.timed_as(pair[1]), self.bench, seconds=_SECONDS)

    def _groups(self, choice: Choice) -> list[list[str]]:
        """Names of sites that are decided on together, those of the least gain first; only where some are undecided."""
        layers = {site.name: Layer.of(site) for site in find_sites(self.model) if site.name in choice}
        found: dict[tuple[Layer, str], list[str]] = {}
        for name, offer in choice.items():
            found.setdefault((layers[name], offer.scheme.name), []).append(name)
        groups = sorted(found.values(), key=lambda names: gain_of({name: choice[name] for name in names}))
        while len(groups) > GROUPS:  # those that promise least are decided on together
            groups[:2] = [groups[0] + groups[1]]
        return [names for names in groups if any((name, choice[name].scheme.name) not in self.kept for name in names)]


def timed(before: Model, after: Model, bench: Workbench, *, seconds: float) -> Pace:
    """How fast a model is beside another.

    Args:
        before: what it is compared with.
        after: the model.
        bench: brings batches to time with, providers and threads.
        seconds: after which no new round starts, for each provider.
    """
    return pace(before, [after], bench, seconds=seconds, rounds=_ROUNDS, together=_TOGETHER)[0]
