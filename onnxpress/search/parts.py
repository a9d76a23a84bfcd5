"""Samples parted: some to learn from, some to choose by, some to judge what was chosen; none does two of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.rewriter.specs import InputSpec

_BATCHES = 8
"""With fewer for each part, the rows of each batch are parted instead, where a model takes any number of rows."""

_SHARED = (
    "the samples to judge by (--test) begin with those for the passes (--data): --test is left aside, and --data is "
    "parted so that none judges what it taught; give others to judge by"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The samples of a search.

    Attributes:
        learn: for the passes.
        choose: for the choice between candidates.
        judge: for what was chosen.
        warnings: where one part had to do the work of another.
    """

    learn: Feed
    choose: Feed
    judge: Feed
    warnings: tuple[str, ...] = ()


def part(data: Feed, test: Feed | None, inputs: Sequence[InputSpec]) -> Parts:
    """Part the samples.

    Where there are samples to judge by, one half of them chooses. Else, and where they begin with those for the
    passes, half of these are for the passes, and a quarter each for the choice and the judgement.

    Args:
        data: for the passes; for all, where there are no others.
        test: to judge by.
        inputs: of the model.
    """
    if test is not None and _shared(data, test):
        parts = part(data, None, inputs)
        return replace(parts, warnings=(*parts.warnings, _SHARED))
    if test is not None:
        parted = _parted(test, (1, 1), inputs)
        if parted is not None:
            choose, judge = parted
            return Parts(data, choose, judge)
        return Parts(data, test, test, ("there is but one test sample to choose and to judge by: give more (--test)",))
    parted = None if data.made_up else _parted(data, (2, 1, 1), inputs)
    if parted is not None:
        learn, choose, judge = parted
        return Parts(learn, choose, judge)
    if data.made_up:
        return Parts(data, data, data)
    few = "there are too few samples to keep some for judging: the result is judged on those that the passes saw"
    return Parts(data, data, data, (f"{few}; give more (--data), or others (--test)",))


def _parted(feed: Feed, weights: tuple[int, ...], inputs: Sequence[InputSpec]) -> list[Feed] | None:
    """Parts of a feed in these proportions, spread evenly over it; None where there are too few samples."""
    count = feed.count if feed.count is not None else sum(1 for _ in feed.samples())
    parts, pattern = len(weights), np.repeat(np.arange(len(weights)), weights)
    if count < _BATCHES * len(weights) and (lengths := _by_rows(feed, inputs, len(pattern))):
        shares = [tuple(np.flatnonzero(pattern == k).tolist()) for k in range(parts)]
        return [_feed(_Rows(feed, each, len(pattern)), feed, lengths) for each in shares]
    if count < len(pattern):
        return None
    turns = np.resize(pattern, count)
    return [_feed(_Batches(feed, frozenset(np.flatnonzero(turns == k).tolist())), feed) for k in range(parts)]


def _feed(source: _Rows | _Batches, whole: Feed, lengths: Sequence[int] = ()) -> Feed:
    count = len(source.keep) if isinstance(source, _Batches) else sum(len(each) > 0 for each in source.chosen(lengths))
    return Feed(source, count=count, warnings=whole.warnings)


def _by_rows(feed: Feed, inputs: Sequence[InputSpec], least: int) -> list[int]:
    """Rows of each batch, where they can be cut: the model takes any number, and there are enough; else none."""
    if any(not spec.shape or isinstance(spec.shape[0], int) for spec in inputs):
        return []
    found: list[int] = []
    for sample in feed.samples():
        arrays = [*sample.batch.values(), *([] if sample.labels is None else [sample.labels])]
        lengths = {len(each) if each.ndim else 0 for each in arrays}
        if len(lengths) != 1:
            return []
        found.append(lengths.pop())
    return found if min(found, default=0) and sum(found) >= least else []


def _shared(data: Feed, test: Feed) -> bool:
    """Whether two feeds begin with the same samples, as two openings of one file do."""
    first, second = (next(iter(each.samples())) for each in (data, test))
    if data.made_up or first.batch.keys() != second.batch.keys():
        return False
    pairs = [(first.batch[name], second.batch[name]) for name in first.batch]
    if first.labels is not None and second.labels is not None:
        pairs.append((first.labels, second.labels))
    return all(_begin_alike(*pair) for pair in pairs)


def _begin_alike(first: Array, second: Array) -> bool:
    if first.ndim and second.ndim:
        rows = min(len(first), len(second))
        first, second = first[:rows], second[:rows]
    return np.array_equal(first, second)


@dataclass(frozen=True, slots=True)
class _Batches:
    """Some of the batches, by position."""

    feed: Feed
    keep: frozenset[int]

    def __iter__(self) -> Iterator[Sample]:
        for position, sample in enumerate(self.feed.samples()):
            if position in self.keep:
                yield sample


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some of the rows, counted through all batches: those whose number leaves one of these remainders."""

    feed: Feed
    remainders: tuple[int, ...]
    cycle: int

    def __iter__(self) -> Iterator[Sample]:
        before = 0
        for batch, labels in self.feed.samples():
            length = len(next(iter(batch.values())))
            chosen, before = self._of(before, length), before + length
            if len(chosen):
                own = {name: array[chosen] for name, array in batch.items()}
                yield Sample(own, None if labels is None else labels[chosen])

    def chosen(self, lengths: Sequence[int]) -> Iterator[NDArray[np.int64]]:
        """Rows of each batch, by the rows of all."""
        before = 0
        for length in lengths:
            yield self._of(before, length)
            before += length

    def _of(self, before: int, length: int) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin((before + np.arange(length)) % self.cycle, self.remainders))
