"""Candidates of several routes made at the same time, where there are workers; measured they are one by one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.progress import Silent
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.jobs import Parcel, each, programs
from onnxpress.passes.threads import threads_are, threads_now
from onnxpress.rewriter.errors import EngineError, OnnxpressError
from onnxpress.search.plans import Plan
from onnxpress.search.workshop import Files, Made, Workshop

CARRIED = 2**29
"""Bytes of a model, or of all samples, that go to a worker at most."""


class Ahead:
    """Makes on workers what waits to be measured.

    What a worker needs travels to it, and what it made comes back, so that it may be another machine. The work of a
    candidate is the same there, so the result is the same. What cannot travel, and what fails there, is made here when
    its turn comes, and nothing is made while something is measured.

    Attributes:
        notes: what the user must know of workers that were lost.
    """

    def __init__(self, workshop: Workshop, bench: Workbench) -> None:
        """Make nothing yet.

        Args:
            workshop: where candidates go.
            bench: of the passes.
        """
        self.notes: list[str] = []
        self._workshop, self._bench = workshop, bench
        self._ground: _Ground | None = None
        self._took: dict[str, float] = {}
        self._lost = self._alone = False

    def make(self, plans: Sequence[Plan], *, label: str) -> None:
        """Make several at once, where the first is not there yet and there are workers that are programs.

        Args:
            plans: that wait, the next one first.
            label: of the progress.
        """
        if self._lost or self._alone or len(plans) < 2 or self._workshop.has(plans[0].passes):
            return
        try:
            count = programs()
            if count > 1:
                self._make({plan.key: plan for plan in plans if self._travels(plan)}, plans[0].key, count, label)
        except EngineError as error:
            self._lose(error)

    def made(self, plan: Plan) -> Made:
        """A candidate, made here if it is not there yet; without workers where they are lost.

        Raises:
            OnnxpressError: what a pass raises.
        """
        if not self._lost:
            try:
                return self._workshop.make(plan)
            except EngineError as error:
                self._lose(error)
        from joblib import parallel_config

        with parallel_config(backend="sequential"):
            return self._workshop.make(plan)

    def took(self, plan: Plan) -> float:
        """Seconds that workers needed for a candidate: its part of the time in which several were made."""
        return self._took.get(plan.key, 0.0)

    def _make(self, plans: Mapping[str, Plan], first: str, count: int, label: str) -> None:
        """Make as many as there are workers, if the first is among them, which else is made here with all workers."""
        now = list(plans.values())[:count]
        ground = self._bench_there() if first in plans and len(now) > 1 else None
        if ground is None:
            return
        threads, jobs = threads_now(), count // len(now)
        orders = (_Order(plan.passes, *self._start(plan), threads, jobs) for plan in now)
        began, seconds = time.perf_counter(), dict[str, float]()
        found = each(_made, orders, progress=self._bench.progress, label=label, total=len(now), shared=(ground,))
        for plan, one in zip(now, found, strict=True):
            if one is not None:
                self._take(plan, one)
                seconds[plan.key] = one.seconds
        whole = (time.perf_counter() - began) / max(sum(seconds.values()), 1e-9)
        self._took |= {key: whole * own for key, own in seconds.items()}

    def _travels(self, plan: Plan) -> bool:
        """Whether a worker can make it: it is not too large, measures nothing for other plans, and times nothing."""
        done = len(self._workshop.nearest(plan.passes))
        left = plan.passes[done:]
        if not left or any(each.times for each in left) or self._workshop.measures(left):
            return False
        return self._workshop.nbytes(plan.passes[:done]) <= CARRIED

    def _start(self, plan: Plan) -> tuple[int, Files]:
        """How many passes are done, and the model behind them."""
        before = self._workshop.nearest(plan.passes)
        return len(before), self._workshop.files(before)

    def _bench_there(self) -> _Ground | None:
        """The workbench with all samples in memory; None where they are too large."""
        if self._ground is None and not self._alone:
            held = None if self._bench.feed is None else _held(self._bench.feed)
            self._alone = held is None and self._bench.feed is not None
            # Without the metric, which may be nowhere else: a pass that needs it fails there, and is done here.
            self._ground = (
                None if self._alone else _Ground(replace(self._bench, feed=held, metric=None, progress=Silent()))
            )
        return self._ground

    def _take(self, plan: Plan, found: _Found) -> None:
        for count, files in found.files.items():
            if not self._workshop.has(plan.passes[:count]):
                self._workshop.put(plan.passes[:count], files)

    def _lose(self, error: EngineError) -> None:
        self._lost = True
        self.notes.append(f"{error}; the rest was made without workers")


@dataclass(frozen=True, slots=True, eq=False)
class _Order(Parcel):
    """A candidate that a worker is to make.

    Attributes:
        passes: all of the plan.
        done: how many of them are.
        files: of the model behind these.
        threads: of linear algebra, as there are here: sums depend on it.
        jobs: threads that may share independent work.
    """

    passes: tuple[Pass, ...]
    done: int
    files: Files
    threads: int
    jobs: int

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.files.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Ground(Parcel):
    """What all candidates are made with."""

    bench: Workbench

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for batch in self.bench.feed or () for array in batch.values())


@dataclass(frozen=True, slots=True)
class _Found:
    """What a worker made.

    Attributes:
        files: of each model that was stored, by how many passes it is behind.
        seconds: that it took.
    """

    files: Mapping[int, Files]
    seconds: float


def _held(feed: Feed) -> Feed | None:
    """The same samples in memory; None where they are too large, or cannot be read: passes tell of that."""
    held: list[Sample] = []
    size = 0
    try:
        for sample in feed.samples():
            size += sum(array.nbytes for array in sample.batch.values())
            if size > CARRIED:
                return None
            held.append(sample)
    except OnnxpressError:
        return None
    return Feed(held, count=feed.count, warnings=feed.warnings, made_up=feed.made_up)


def _made(order: _Order, ground: _Ground) -> _Found | None:
    """A candidate; None where it fails: it is made again where it was ordered, and the same error told there."""
    from joblib import parallel_config

    began = time.perf_counter()
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        workshop = Workshop(Path(folder), ground.bench)
        workshop.put(order.passes[: order.done], order.files)
        try:
            with threads_are(order.threads), parallel_config(backend="threading", n_jobs=order.jobs):
                grown = workshop.grow(order.passes)
        except Exception:  # whatever a pass does
            return None
        return _Found({len(one): workshop.files(one) for one in grown}, time.perf_counter() - began)
