"""Timings while somebody else slows the machine, noticed by the reference and taken again."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

SLOWED = 1.15
"""Times that the reference takes as long as it once did, above which the machine was disturbed: calm medians of some 30
runs stayed within 1.1 of the least, disturbed ones were 1.2 to 1.35 times that."""

AGAIN = 3
"""Times that one measurement is taken again at most."""

FOR_ONE = 6.0
"""Times the seconds of one timing that taking it again may take, where it is the last word."""

_Race = TypeVar("_Race")


@dataclass(slots=True)
class Calm:
    """Takes a measurement again while the machine is disturbed, and remembers how fast the reference can be.

    What shares a machine slows one kind of arithmetic more than another, for seconds to minutes: on a virtual machine
    the float model took 1.27 and the int8 model 1.68 times as long through whole races, so that what is 1.52 times as
    fast was measured as 1.15 times, with quartiles 0.03 apart. Neither turns nor medians show that; the latency of the
    reference beside the least it ever took does. The race in which the reference was fastest counts, whatever the
    other came to in it, so nothing is chosen by its own luck.

    Attributes:
        patience: seconds that waiting and measuring again may take from now on.
    """

    patience: float = 0.0
    _least: dict[Hashable, float] = field(default_factory=dict)

    def race(self, key: Hashable, run: Callable[[], _Race], latency: Callable[[_Race], float]) -> tuple[_Race, float]:
        """Measure, and again after a pause as long while the reference is slowed.

        Args:
            key: of the reference and of all that decides how long it takes.
            run: one measurement.
            latency: seconds that the reference took in it.

        Returns:
            The measurement in which the reference was fastest, and how many times as long as at its fastest it took.
        """
        best: _Race | None = None
        for again in reversed(range(1 + AGAIN)):
            began = time.perf_counter()
            found = run()
            if best is None or latency(found) < latency(best):
                best = found
            self._least[key] = min(latency(best), self._least.get(key, latency(best)))
            took = time.perf_counter() - began
            if latency(best) <= SLOWED * self._least[key] or self.patience < 2 * took or not again:
                break
            time.sleep(took)
            self.patience -= 2 * took
        assert best is not None
        return best, latency(best) / self._least[key]
