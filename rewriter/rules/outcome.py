"""What a rule did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """What a rule changed and what it left, each with the place and a sentence.

    Attributes:
        done: (site, action).
        counts: how often something too small to be named each time was done, by what it was.
        left: (site, reason).
    """

    done: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything was changed."""
        return bool(self.done or self.counts)
