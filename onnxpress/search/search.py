"""The search: routes of all families climbed in turn, each by halving the step, the best combined."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from onnxpress.passes.base import Workbench
from onnxpress.rewriter.errors import OnnxpressError
from onnxpress.search.ahead import Ahead
from onnxpress.search.budget import Goal
from onnxpress.search.climbing import Climb
from onnxpress.search.ledger import Ledger, digest_of
from onnxpress.search.measure import Scales
from onnxpress.search.plans import NORMALISED, Plan, Route, numbers, sizes, structures, together
from onnxpress.search.trial import Trial
from onnxpress.search.workshop import Workshop

RESERVED = 0.15
"""Part of the time that the judgement of the best is left."""

_NEAR = 0.5
"""Of the best gain: what still is a finalist to be glad of."""

_SURE = (0.95, 0.99)
"""Probabilities below each of which the best needs one more plan in reserve."""

_KEPT = 6
"""Models that stay until the last judgement: the best, and surer ones behind them."""

_MARGIN = 1.0
"""Decibels above the limit with which other samples will hardly find an output too bad."""


@dataclass(slots=True)
class Search:
    """Looks for the model that gains most within a budget.

    Attributes:
        workshop: makes candidates.
        scales: measure them.
        ledger: keeps what was measured.
        bench: of the passes.
        ahead: makes candidates, several at once where there are workers.
    """

    workshop: Workshop
    scales: Scales
    ledger: Ledger
    bench: Workbench
    ahead: Ahead = field(init=False)
    _plans: dict[str, Plan] = field(default_factory=dict)
    _climbs: list[Climb] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Nothing is made yet."""
        self.ahead = Ahead(self.workshop, self.bench)

    def run(self) -> list[tuple[Plan, Trial]]:
        """All that was accepted, the best first; as good as could be found in the time."""
        learns = self.bench.for_learning().feed is not None
        self._try(NORMALISED)
        goal = self.scales.budget.goal
        self._explore(sizes(learns=learns) if goal == "size" else numbers(self.bench, goal) if learns else [])
        behind = self._behind(goal)
        self._explore(structures(behind, goal, learns=learns, nbytes=self._nbytes))
        best = self._accepted()
        self._explore(together(best[0][0], behind, goal, nbytes=self._nbytes) if best and learns else [])
        self._secure()
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
        """Climb all routes: one step of each first, then of the one whose next promises most."""
        climbs = [Climb(route) for route in routes]
        self._climbs.extend(climbs)
        waiting = [(each, plan) for each in climbs if (plan := each.next)]
        while waiting and not self.done:
            best = max((each.gain for _, each in self._accepted()), default=0.0)
            self._leave(plan for route, plan in waiting if route.most <= best)
            waiting = sorted((each for each in waiting if each[0].most > best), key=lambda each: -each[0].promise)
            if not waiting:
                break
            self._make_ahead([plan for _, plan in waiting])
            route, plan = waiting.pop(0)
            trial = self._try(plan, spare=self._reserved())
            if trial is None:
                self._leave([plan])
                continue  # one of another route may take less time
            route.take(trial)
            if following := route.next:
                waiting.append((route, following))
        self._leave(plan for _, plan in waiting)

    def _leave(self, plans: Iterable[Plan]) -> None:
        """Remove what may have been made of plans that are not to be measured."""
        for plan in plans:
            if self.ledger.recall(plan.key) is None:
                self.workshop.drop(plan)

    def _behind(self, goal: Goal) -> Plan:
        """What fewer or thinner layers are followed by: the best so far, or what leaves them some room."""
        best = self._accepted()
        if not best:
            return NORMALISED
        plan = best[0][0]
        if goal != "size":
            return plan
        gentler = [each for route in self._climbs if plan.key in route.tried for each in route.gentler(plan.key)]
        return gentler[0] if gentler else plan

    @property
    def _nbytes(self) -> int:
        """Of the file of the best so far."""
        best = self._accepted()
        return best[0][1].nbytes if best else self.scales.nbytes

    def _secure(self) -> None:
        """Put somewhat gentler plans by where other samples may find that the best loses too much."""
        accepted = self._accepted()
        if not accepted:
            return
        best = accepted[0][1]
        near = sum(each.gain >= _NEAR * best.gain and each.surer_than(best) for _, each in accepted)
        for route in (each for each in self._climbs if best.key in each.tried):
            for plan in route.gentler(best.key)[: max(0, self._doubts(best) - near)]:
                self._try(plan, whatever=True)

    def _doubts(self, trial: Trial) -> int:
        """How many plans in reserve a candidate needs, by how surely it keeps to the budget."""
        budget = self.scales.budget
        close = budget.sqnr is not None and trial.sqnr is not None and trial.sqnr < budget.sqnr + _MARGIN
        sure = 1.0 if trial.probability is None else trial.probability
        return max(int(close), sum(sure < each for each in _SURE))

    def _reserved(self) -> float:
        """Seconds that are left for plans in reserve."""
        best = self._accepted()[:1]
        if not best:
            return 0.0
        return self._doubts(best[0][1]) * min(self._alike(best[0][0]), default=0.0)

    def _make_ahead(self, plans: Sequence[Plan]) -> None:
        """Let several workers make what waits, where there is time for it; each is measured when its turn comes."""
        wanted = [each for each in plans if self.ledger.recall(each.key) is None and self.left >= self._expected(each)]
        self.ahead.make(wanted, label=f"candidates at once ({max(0.0, self.left):.0f} s left)")

    def _try(self, plan: Plan, *, spare: float = 0.0, whatever: bool = False) -> Trial | None:
        """Make and measure one candidate.

        Args:
            plan: that makes it.
            spare: seconds that must be left behind it.
            whatever: measure it to the end even where it gains less than the best.

        Returns:
            None where there is no time left for it.
        """
        self._plans[plan.key] = plan
        trial = self.ledger.recall(plan.key)
        if trial is None:
            if self.left - spare < self._expected(plan):
                return None
            best = max((each.gain for _, each in self._accepted()), default=0.0)
            for _ in self.bench.progress.track([plan], label=self._label(plan, best), total=1):
                trial = self._measured(plan, 0.0 if whatever else best)
        assert trial is not None
        self.ledger.note(trial)
        self._tidy()
        return trial

    def _measured(self, plan: Plan, best: float) -> Trial:
        began, digest = time.perf_counter(), ""
        try:
            path = self.ahead.made(plan).path
            digest = digest_of(path)
            twin = self.ledger.twin(digest)
            if twin is not None and twin.settled(best):
                trial = twin.repeated(plan)
            else:
                trial = self.scales.weigh(plan, path, best=best)
        except OnnxpressError as error:
            trial = Trial(name=plan.name, key=plan.key, passes=plan.options, outcome="failed", reason=str(error))
        return replace(trial, seconds=time.perf_counter() - began + self.ahead.took(plan), digest=digest)

    def _expected(self, plan: Plan) -> float:
        """Seconds that a candidate takes, by those before it that end in the same way."""
        return max(self._alike(plan), default=0.0)

    def _alike(self, plan: Plan) -> list[float]:
        """Seconds of the candidates made by the same passes."""
        names = [each.name for each in plan.passes]
        return [t.seconds for t in self.ledger.trials if [next(iter(each)) for each in t.passes] == names]

    def _accepted(self) -> list[tuple[Plan, Trial]]:
        found = [each for each in self.ledger.trials if each.accepted]
        return [(self._plans[each.key], each) for each in sorted(found, key=lambda each: -each.gain)]

    def _tidy(self) -> None:
        """Remove models that nothing needs any more."""
        kept = {trial.key for _, trial in self._accepted()[:_KEPT]}
        for trial in self.ledger.trials:
            if trial.key not in kept:
                self.workshop.drop(self._plans[trial.key])

    def _label(self, plan: Plan, best: float) -> str:
        so_far = f"best so far {self.scales.describe(best)}" if best else "nothing yet"
        return f"{plan.name} ({so_far}, {max(0.0, self.left):.0f} s left)"
