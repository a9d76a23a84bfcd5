"""What one candidate of a search came to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

if TYPE_CHECKING:
    from onnxpress.search.plans import Plan

Outcome = Literal["accepted", "weak", "lossy", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One way to compress the model, made and measured on samples that it did not learn from.

    Attributes:
        name: what was done, in a few words, as `prune 30 %, int8`.
        key: under which the search finds it again: a hash of passes and options.
        passes: in order, by name with all options.
        nbytes: of the file.
        speedup: latency of the input over its own, the median of pairs; None where the goal asks for none.
        quartiles: lower and upper quartile of that ratio.
        memory: bytes that loading and running take at most; None where the goal asks for none.
        metric: what the task's own measure gives; None without one, or where it was not reached.
        drop: how far that is below the input's.
        probability: that the drop is within the limit, by paired bootstrap; None where nothing can be drawn again.
        sqnr: of the worst output, in dB; None where it was not reached.
        gain: times better than the input in the goal.
        outcome: `accepted` where it keeps to the budget; `weak` where it gains no more than the best so far, so that
            the rest was not measured; `lossy` where it loses too much; `failed` where it could not be made.
        reason: why it was not accepted; empty where it was.
        seconds: wall time to make and to measure it.
        digest: a hash of its files; empty where it could not be made.
    """

    name: str
    key: str
    passes: tuple[dict[str, JsonValue], ...]
    outcome: Outcome
    nbytes: int = 0
    speedup: float | None = None
    quartiles: tuple[float, float] | None = None
    memory: int | None = None
    metric: float | None = None
    drop: float | None = None
    probability: float | None = None
    sqnr: float | None = None
    gain: float = 0.0
    reason: str = ""
    seconds: float = 0.0
    digest: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it keeps to the budget."""
        return self.outcome == "accepted"

    def settled(self, best: float) -> bool:
        """Whether it was measured as far as it would be beside this best; one that is weak was not to the end."""
        return self.outcome != "weak" or self.gain <= best

    def surer_than(self, other: Trial) -> bool:
        """Whether it keeps to the budget more surely than another, as far as that was measured."""
        mine, theirs = (
            (math.inf if each.probability is None else each.probability, math.inf if each.sqnr is None else each.sqnr)
            for each in (self, other)
        )
        return mine > theirs

    def repeated(self, plan: Plan) -> Trial:
        """The trial of another plan that makes the same file: nothing is measured again, and nothing gained."""
        outcome: Outcome = "weak" if self.accepted else self.outcome
        reason = f"the same file as {self.name}" + (f": {self.reason}" if self.reason else "")
        return replace(self, name=plan.name, key=plan.key, passes=plan.options, outcome=outcome, reason=reason)
