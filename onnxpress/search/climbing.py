"""A route climbed by halving the step, as far up as loses no more than may be lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnxpress.search.plans import Plan, Route
from onnxpress.search.trial import Trial

_GENTLER = 0.07
"""Of the strength: how much gentler a plan in reserve is than the one before."""


@dataclass(slots=True)
class Climb:
    """Plans of a route: stronger ones while they are good, gentler ones where they lose too much.

    Attributes:
        route: that is climbed.
        tried: strengths that were tried, by the key of their plans.
    """

    route: Route
    tried: dict[str, float] = field(default_factory=dict)
    _gains: dict[float, float] = field(default_factory=dict)
    _low: float = 0.0
    _high: float = 1.0
    _ended: bool = False

    @property
    def next(self) -> Plan | None:
        """The plan to try; None at the end of the route."""
        plan = self.route.plan(self._at)
        return None if self._ended or len(self.tried) == self.route.steps or plan.key in self.tried else plan

    @property
    def promise(self) -> float:
        """What the next plan may gain, by those beside it on the route; infinite where nothing is known of it yet."""
        known = sorted(self._gains.items())
        if not known:
            return math.inf
        return float(np.interp(self._at, [at for at, _ in known], [gain for _, gain in known]))

    @property
    def most(self) -> float:
        """What the next plan gains at most: stronger ones gain more; infinite where none was tried."""
        return min((gain for at, gain in self._gains.items() if at >= self._at), default=math.inf)

    def take(self, trial: Trial) -> None:
        """Go on by what the next plan came to."""
        strength = self.tried[trial.key] = self._at
        self._gains[strength] = trial.gain
        if trial.outcome == "failed":
            self._ended = True
        elif trial.outcome == "lossy":
            self._high = strength
        else:
            self._low = strength

    def gentler(self, key: str) -> list[Plan]:
        """Plans somewhat gentler than one that was tried, the strongest first."""
        at = self.tried[key]
        plans = [self.route.plan(max(0.0, at - count * _GENTLER)) for count in (1, 2)]
        return list({plan.key: plan for plan in plans if plan.key not in self.tried}.values())

    @property
    def _at(self) -> float:
        return (self._low + self._high) / 2 if self.tried else self.route.first
