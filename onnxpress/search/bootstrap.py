"""How sure it is that a metric fell by no more than a limit: the paired bootstrap (Efron and Tibshirani, 1993).

Both models are judged on the same samples. These are drawn again with replacement, many times, and the part of the
draws in which the drop keeps to the limit is how sure one can be of it; what both models get wrong cancels out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.metrics import ROUNDING, Metric
from onnxpress.search.scores import Piece, Scored, Scores, replay

DRAWS = 10_000
_LEAST_DRAWS = 100
"""Without so many that gave a number, nothing is said of how sure the drop is."""
_SECONDS = 20.0
"""After which a metric that is no mean is taken of no other draw."""
_DISTINCT = 1000
"""Values of a sample's drop up to which draws are of values, however many samples there are."""
_PICKED = 200_000_000
"""Samples that are picked in all draws together, where they are picked one by one: some seconds; a tenth of the draws
is made in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How far a metric fell, and how sure that is.

    Attributes:
        metric: its name.
        value: on the samples as they are.
        limit: that it should keep to.
        low: the drop is no smaller than that, with the confidence.
        high: it is no larger than that, with the confidence.
        confidence: that is wanted of the limit.
        probability: part of the draws in which the drop keeps to the limit; None where nothing can be drawn again.
        samples: that were drawn from.
        draws: so many times.
    """

    metric: str
    value: float
    limit: float
    low: float | None
    high: float | None
    confidence: float
    probability: float | None
    samples: int
    draws: int

    @property
    def held(self) -> bool:
        """Whether the drop keeps to the limit, as surely as wanted; how sure it is counts only where that is known."""
        sure = self.probability is None or self.probability >= self.confidence
        return self.value <= self.limit + ROUNDING and sure

    def describe(self) -> str:
        """What is known, in words."""
        if math.isnan(self.value):
            return f"{self.metric} is not a number"
        way = "fell" if self.value > 0 else "rose"
        moved = f"{self.metric} {way} by {abs(self.value):.4g}" if self.value else f"{self.metric} stayed the same"
        if self.probability is None:
            return f"{moved}; how sure that is cannot be said: this metric cannot be taken of samples drawn again"
        return (
            f"{moved} ({self.low:.4g} to {self.high:.4g}, each end at a confidence of {self.confidence:.0%}); it keeps "
            f"to {self.limit:g} in {self.probability:.1%} of {self.draws} draws from {self.samples} samples"
        )


def drop_of(metric: Metric, before: Scores, after: Scores, *, limit: float, confidence: float, seed: int = 0) -> Drop:
    """Compare two models that were judged on the same samples.

    Args:
        metric: that both were judged by.
        before: of the original.
        after: of the result.
        limit: how far it may fall.
        confidence: that is wanted, in [0, 1).
        seed: of the draws.
    """
    drops = _drops(metric, before, after, np.random.default_rng(seed))
    low, high, probability = None, None, None
    if drops is not None:
        low, high = map(float, np.quantile(drops, [1 - confidence, confidence]))
        probability = float(np.mean(drops <= limit + ROUNDING))
    return Drop(
        metric=metric.name,
        value=before.value - after.value,
        limit=limit,
        low=low,
        high=high,
        confidence=confidence,
        probability=probability,
        samples=min(before.samples, after.samples),
        draws=0 if drops is None else len(drops),
    )


def worst_drop(metric: Scored, *, limit: float, confidence: float, seed: int = 0) -> Drop | None:
    """The largest drop, of a metric that was taken of the original and the result, provider by provider.

    One that does not keep to the limit as surely as wanted comes before a larger one that does, and one that is not a
    number before all.

    Args:
        metric: with what it said, in this order.
        limit: how far it may fall.
        confidence: that is wanted, in [0, 1).
        seed: of the draws.

    Returns:
        None where it was not taken.
    """
    pairs = zip(metric.taken[::2], metric.taken[1::2], strict=True)
    drops = [drop_of(metric.metric, *pair, limit=limit, confidence=confidence, seed=seed) for pair in pairs]
    return max(drops, key=lambda each: (math.isnan(each.value), not each.held, each.value), default=None)


def _drops(metric: Metric, before: Scores, after: Scores, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Drops of the metric on samples drawn again; None where none can be."""
    if before.rows is not None and after.rows is not None and len(before.rows) == len(after.rows):
        return _of_means(before.rows - after.rows, rng)
    if before.pieces is None or after.pieces is None or len(before.pieces) != len(after.pieces):
        return None
    return _of_replays(metric, before.pieces, after.pieces, rng)


def _of_means(drops: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    values, counts = np.unique(drops, return_counts=True)
    if len(values) <= _DISTINCT:  # how often each value is drawn is all that matters
        return rng.multinomial(len(drops), counts / len(drops), size=DRAWS) @ values / len(drops)
    count = min(DRAWS, max(DRAWS // 10, _PICKED // len(drops)))
    return np.array([drops[rng.integers(0, len(drops), len(drops))].mean() for _ in range(count)])


def _of_replays(
    metric: Metric, before: Sequence[Piece], after: Sequence[Piece], rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """For a metric that is no mean: take it anew of each draw."""
    if any(first.rows != second.rows for first, second in zip(before, after, strict=True)):
        return None
    began, found = time.perf_counter(), []
    for _ in range(DRAWS):
        picks = _picks([each.rows for each in before], rng)
        first, second = (replay(metric, _taken(pieces, picks)) for pieces in (before, after))
        found.append(first - second)
        if time.perf_counter() - began > _SECONDS:
            break
    drops = np.array(found)
    drops = drops[np.isfinite(drops)]  # a draw of one class has no ROC curve
    return drops if len(drops) >= _LEAST_DRAWS else None


def _picks(rows: Sequence[int | None], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Which samples of each batch are drawn, as often as they are."""
    counts = [each or 1 for each in rows]
    drawn = np.sort(rng.integers(0, sum(counts), sum(counts)))
    ends = np.cumsum(counts)
    parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    return [part - (end - count) for part, end, count in zip(parts, ends, counts, strict=True)]


def _taken(pieces: Sequence[Piece], picks: Sequence[NDArray[np.int64]]) -> list[Piece]:
    found: list[Piece] = []
    for piece, rows in zip(pieces, picks, strict=True):
        if piece.rows is None:
            found.extend([piece] * len(rows))
        elif len(rows):
            found.append(piece.part(rows))
    return found
