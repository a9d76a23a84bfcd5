"""The search: routes of all families climbed in turn, each by halving the step, the best combined."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace

from onnxpress.passes.base import Workbench
from onnxpress.rewriter.errors import OnnxpressError
from onnxpress.search.ledger import Ledger
from onnxpress.search.measure import Scales
from onnxpress.search.plans import NORMALISED, Plan, Route, numbers, sizes, structures
from onnxpress.search.trial import Trial
from onnxpress.search.workshop import Workshop

Climb = Generator[Plan, Trial, None]

RESERVED = 0.15
"""Part of the time that the judgement of the best is left."""


@dataclass(slots=True)
class Search:
    """Looks for the model that gains most within a budget.

    Attributes:
        workshop: makes candidates.
        scales: measure them.
        ledger: keeps what was measured.
        bench: of the passes.
    """

    workshop: Workshop
    scales: Scales
    ledger: Ledger
    bench: Workbench
    _plans: dict[str, Plan] = field(default_factory=dict)
    _began: float = field(default_factory=time.perf_counter)

    def run(self) -> list[tuple[Plan, Trial]]:
        """All that was accepted, the best first; as good as could be found in the time."""
        learns = self.bench.for_learning().feed is not None
        self._try(NORMALISED)
        if self.scales.budget.goal == "size":
            self._explore(sizes(learns=learns))
        else:
            self._explore(numbers(self.bench, self.scales.budget.goal) if learns else [])
            best = self._accepted()
            narrow = best[0][0] if best else NORMALISED
            self._explore(structures(narrow, learns=learns))
        return self._accepted()

    @property
    def left(self) -> float:
        """Seconds until no other candidate is begun."""
        spent = time.perf_counter() - self._began + self.ledger.spent
        return (1 - RESERVED) * self.scales.budget.time_limit - spent

    @property
    def done(self) -> bool:
        """Whether what was asked for is found."""
        wanted, best = self.scales.wanted, self._accepted()
        return wanted is not None and bool(best) and best[0][1].gain >= wanted

    def _explore(self, routes: Iterable[Route]) -> None:
        """Climb all routes, one step of each in turn."""
        climbs = [climb(route) for route in routes]
        waiting = [(each, next(each)) for each in climbs]
        while waiting and not self.done:
            route, plan = waiting.pop(0)
            trial = self._try(plan)
            if trial is None:
                continue  # one of another route may take less time
            try:
                waiting.append((route, route.send(trial)))
            except StopIteration:
                continue

    def _try(self, plan: Plan) -> Trial | None:
        """Make and measure one candidate; None where there is no time left for it."""
        self._plans[plan.key] = plan
        trial = self.ledger.recall(plan.key)
        if trial is None:
            if self.left < self._expected(plan):
                return None
            best = max((each.gain for _, each in self._accepted()), default=0.0)
            for _ in self.bench.progress.track([plan], label=self._label(plan, best), total=1):
                trial = self._measured(plan, best)
        assert trial is not None
        self.ledger.note(trial)
        self._tidy()
        return trial

    def _measured(self, plan: Plan, best: float) -> Trial:
        began = time.perf_counter()
        try:
            trial = self.scales.weigh(plan, self.workshop.make(plan).path, best=best)
        except OnnxpressError as error:
            trial = Trial(name=plan.name, key=plan.key, passes=plan.options, outcome="failed", reason=str(error))
        return replace(trial, seconds=time.perf_counter() - began)

    def _expected(self, plan: Plan) -> float:
        """Seconds that a candidate takes, by those before it that end in the same way."""
        names = [each.name for each in plan.passes]
        alike = [t.seconds for t in self.ledger.trials if [next(iter(each)) for each in t.passes] == names]
        return max(alike, default=0.0)

    def _accepted(self) -> list[tuple[Plan, Trial]]:
        found = [each for each in self.ledger.trials if each.accepted]
        return [(self._plans[each.key], each) for each in sorted(found, key=lambda each: -each.gain)]

    def _tidy(self) -> None:
        """Remove models that nothing needs any more."""
        kept = {trial.key for _, trial in self._accepted()[:3]}
        for trial in self.ledger.trials:
            if trial.key not in kept:
                self.workshop.drop(self._plans[trial.key])

    def _label(self, plan: Plan, best: float) -> str:
        so_far = f"best so far {self.scales.describe(best)}" if best else "nothing yet"
        return f"{plan.name} ({so_far}, {max(0.0, self.left):.0f} s left)"


def climb(route: Route) -> Climb:
    """Plans of a route: stronger ones while they are good, gentler ones where they lose too much."""
    low, high, at, seen = 0.0, 1.0, route.first, set()
    for _ in range(route.steps):
        plan = route.plan(at)
        if plan.key in seen:
            return
        seen.add(plan.key)
        trial = yield plan
        if trial.outcome == "failed":
            return
        low, high = (low, at) if trial.outcome == "lossy" else (at, high)
        at = (low + high) / 2
