"""What a search is to gain, and what it may cost."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from onnxpress.rewriter.errors import ConfigError

Goal = Literal["size", "latency", "memory"]
GOALS: tuple[Goal, ...] = get_args(Goal)

MIN_SQNR = 20.0
"""In dB, where nothing else is said of what may be lost."""

CONFIDENCE = 0.8
"""Where nothing is said of it."""

SECONDS = 900.0
"""Within which a search ends, where nothing is said of it."""

_UNITS = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_TIMES = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A goal, and what may be lost on the way.

    Attributes:
        goal: what is to become better: `size` of the file, `latency`, or `memory` that loading and running take.
        max_drop: how far the metric may fall; needs a metric.
        min_sqnr: signal to noise that every output must keep, in dB; 20 where neither this nor `max_drop` is given.
        limit: what the result must come to: `"4x"` for so many times better than the input; a size such as `"3MB"` or
            a number of bytes for `size` and `memory`; `"5ms"` or a number of milliseconds for `latency`. None: as
            good as can be found.
        confidence: that the drop keeps to its limit, in [0, 1), by the paired bootstrap over samples.
        time_limit: seconds after which no other candidate is begun.
    """

    goal: Goal
    max_drop: float | None = None
    min_sqnr: float | None = None
    limit: str | float | None = None
    confidence: float = CONFIDENCE
    time_limit: float = SECONDS

    def __post_init__(self) -> None:
        """Check each.

        Raises:
            ConfigError: one that means nothing; names it.
        """
        if self.goal not in GOALS:
            raise ConfigError(f"goal {self.goal!r}: give {', '.join(GOALS)}")
        for name, value, fits, wish in (
            ("max_drop", self.max_drop, lambda each: 0 <= each < math.inf, "a number from 0 on"),
            ("min_sqnr", self.min_sqnr, math.isfinite, "a number of dB"),
            ("confidence", self.confidence, lambda each: 0 <= each < 1, "a number from 0 to below 1"),
            ("time_limit", self.time_limit, lambda each: each > 0, "seconds above 0"),
        ):
            if value is not None and not (_number(value) and fits(value)):
                raise ConfigError(f"{name} {value!r}: give {wish}")
        self.times(1.0)

    @property
    def sqnr(self) -> float | None:
        """Signal to noise that is asked for."""
        return MIN_SQNR if self.min_sqnr is None and self.max_drop is None else self.min_sqnr

    def times(self, before: float) -> float | None:
        """How many times better than the input the result must be; None where nothing is asked for.

        Args:
            before: of the input: bytes, or milliseconds.

        Raises:
            ConfigError: a limit that means nothing.
        """
        limit = self.limit
        if limit is None:
            return None
        if _number(limit):
            return before / float(limit) if 0 < float(limit) < math.inf else self._refuse()
        found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zµ]*)\s*", str(limit).lower())
        try:
            number = float(found[1]) if found else 0.0
        except ValueError:
            number = 0.0
        if not found or not 0 < number < math.inf:
            return self._refuse()
        if found[2] == "x":
            return number
        units = _TIMES if self.goal == "latency" else _UNITS
        return before / (number * units[found[2]]) if found[2] in units else self._refuse()

    def _refuse(self) -> float:
        example = "5ms" if self.goal == "latency" else "3MB"
        raise ConfigError(f"limit {self.limit!r}: give times better, as 4x, or what it may take, as {example}")


def goal_of(name: str | None) -> Goal | None:
    """A goal by its name; None stays None.

    Raises:
        ConfigError: there is no such goal.
    """
    if name is None:
        return None
    for each in GOALS:
        if each == name:
            return each
    raise ConfigError(f"goal {name!r}: give {', '.join(GOALS)}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
