"""The search for the chains that reach a target: offers are chosen, timed in place, fitted and judged, and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.inplace import InPlace
from onnxpress.passes.factorize.making import Made, make
from onnxpress.passes.factorize.offers import Choice, Market, gain_of
from onnxpress.passes.kernels.errors import noise_at
from onnxpress.passes.pace import Pace
from onnxpress.passes.quantize.precision import Demand, Judge, Verdict
from onnxpress.rewriter.model import Model

ROUNDS = 5
"""Choices that are fitted at most."""

_START = 20.0
"""Decibels to begin with where a metric is the target."""

_STRIDE = 6.0
"""Decibels by which the budget changes while only one side of the target was seen."""

_NEAR = 0.4
"""Decibels above the target that are near enough."""

_HIDDEN = 8.0
"""Decibels below the target that are promised at least before a Softmax, where a sure answer hides noise: samples that
nobody saw may be less sure than those held out."""

_PACES = 5
"""Choices that are timed at most on the way to a speed-up."""

_WITHIN = 1.06
"""How much faster than asked for is near enough."""

_SETTLES = 3
"""Choices made anew, at most, because chains turned out to make the model no faster."""


@dataclass(slots=True)
class Search:
    """Looks for a choice.

    Attributes:
        model: to be factorized; it is not changed.
        market: offers for its layers.
        place: times choices in place; None where size is the goal.
        judge: compares results with the model.
        bench: brings the samples to learn from.
        ended: whether time is up.
        refitted: names of sites whose weights may make up for chains before them; None for none, nor those of chains.
        nonlinear: whether chains are fitted to what an activation makes of them.
        best: the result that holds and gains most.
        verdict: on it.
        verdicts: on all choices that were fitted.
    """

    model: Model
    market: Market
    place: InPlace | None
    judge: Judge
    bench: Workbench
    ended: Callable[[], bool] = lambda: False
    refitted: Collection[str] | None = ()
    nonlinear: bool = False
    best: Made | None = None
    verdict: Verdict | None = None
    verdicts: dict[tuple[object, ...], Verdict] = field(default_factory=dict)

    def good_enough(self, demand: Demand) -> None:
        """The most gain with outputs that are still good enough."""
        failing, holding = -math.inf, math.inf  # decibels as predicted
        promised = demand.min_sqnr or _START
        for _ in range(ROUNDS):
            choice = self._settled(Market.within, noise_at(promised))
            if not choice:
                break
            made, verdict = self._made(choice)
            if demand.holds(verdict):
                holding = min(holding, promised)
                if made is not None and (self.best is None or gain_of(made.choice) > gain_of(self.best.choice)):
                    self.best, self.verdict = made, verdict
            else:
                failing = max(failing, promised)
            onward = _onward(promised, verdict, demand, failing, holding)
            if onward is None or self.ended():
                break
            promised = onward

    def fast_enough(self, speedup: float, seconds: float) -> Pace | None:
        """The least noise with a speed-up.

        Args:
            speedup: of the whole model.
            seconds: that all its layers take.

        Returns:
            What was measured before the chains were fitted; None where there is no chain that pays.
        """
        need = seconds * (1 - 1 / speedup)
        reached: tuple[Pace, Choice] | None = None
        for _ in range(_PACES):
            choice = self._settled(Market.gaining, need)
            if not choice or self.place is None:
                break
            found, gain = self.place.speedup(choice), gain_of(choice)
            if reached is None or _nearer(found, reached[0], speedup):
                reached = found, choice
            exhausted = gain >= self.market.most * (1 - 1e-6)
            if 1 <= found.speedup / speedup <= _WITHIN or self.ended() or (exhausted and found.speedup < speedup):
                break
            saved = max(1 - 1 / found.speedup, 0.01)
            need = gain * min(2.0, max(0.5, (1 - 1 / (speedup * (1 + _WITHIN) / 2)) / saved))
        if reached is None:
            return None
        self.best, self.verdict = self._made(reached[1])
        return reached[0]

    def small_enough(self, nbytes: float) -> None:
        """The least noise that saves so many bytes."""
        choice = self._settled(Market.gaining, nbytes)
        if choice:
            self.best, self.verdict = self._made(choice)

    def _made(self, choice: Choice) -> tuple[Made | None, Verdict]:
        """What comes of a choice; None where that was seen before."""
        key = tuple((name, offer.scheme.name, offer.ranks) for name, offer in choice.items())
        if key in self.verdicts:
            return None, self.verdicts[key]
        made = make(self.model, choice, self.bench, refitted=self.refitted, nonlinear=self.nonlinear)
        self.verdicts[key] = self.judge.judge(made.model)
        return made, self.verdicts[key]

    def _settled(self, chosen: Callable[[Market, float], Choice], target: float) -> Choice:
        """A choice of which all makes the model faster, as far as that was measured."""
        for _ in range(_SETTLES):
            choice = chosen(self.market, target)
            if self.place is None or not choice:
                return choice
            left = self.place.settle(choice)
            self.market = self.market.without(self.place.refused)
            if len(left) == len(choice):
                return choice
        return left


def _nearer(found: Pace, before: Pace, speedup: float) -> bool:
    """Whether a pace is the better answer: fast enough, and by as little as can be."""
    if found.speedup >= speedup:
        return not speedup <= before.speedup < found.speedup
    return found.speedup > before.speedup


def _onward(promised: float, verdict: Verdict, demand: Demand, failing: float, holding: float) -> float | None:
    """The decibels to promise next; None where that is near enough."""
    holds = demand.holds(verdict)
    if demand.max_drop is None and math.isfinite(verdict.sqnr):
        above = verdict.sqnr - demand.min_sqnr
        floor = demand.min_sqnr - _HIDDEN
        if holds and (above <= _NEAR or promised <= floor):
            return None
        onward = max(floor, promised - above + _NEAR / 2)
    else:
        onward = promised - _STRIDE if holds else promised + _STRIDE
    if holding - failing <= _NEAR:
        return None
    return onward if failing < onward < holding else (failing + holding) / 2
