"""A metric, sample by sample where it is a mean over samples, so that two models can be compared pair by pair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array, Batch, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric
from onnxpress.calibration.session import Runner

KEPT_BYTES = 1 << 28
"""Of samples and outputs that are kept; with more, a metric is one number."""

SECONDS = 20.0
"""After which no more samples are scored one by one."""

_ALIKE = 1e-9
"""How far the mean of the samples' own scores may be from the metric, relative to it or to the largest of them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A batch with its labels and what a model gave for it.

    Attributes:
        sample: batch and labels.
        outputs: by name.
        rows: samples in it; None where its arrays do not tell them apart.
    """

    sample: Sample
    outputs: Mapping[str, Array]
    rows: int | None

    def part(self, rows: NDArray[np.int64]) -> Piece:
        """Some of its samples, perhaps several times."""
        batch = {name: array[rows] for name, array in self.sample.batch.items()}
        labels = None if self.sample.labels is None else self.sample.labels[rows]
        return Piece(Sample(batch, labels), {name: each[rows] for name, each in self.outputs.items()}, len(rows))


@dataclass(frozen=True, slots=True)
class Scores:
    """What a metric says of a model.

    Attributes:
        value: of all samples.
        rows: of each sample, float64 [samples], where the metric is their mean.
        pieces: what the model gave, where the metric is no mean but can be taken of other samples of it.
        seconds: that one walk through the samples took.
    """

    value: float
    rows: NDArray[np.float64] | None
    pieces: tuple[Piece, ...] | None
    seconds: float

    @property
    def samples(self) -> int:
        """That can be drawn again; 0 where none can."""
        if self.rows is not None:
            return len(self.rows)
        return sum(each.rows or 1 for each in self.pieces or ())


def score(metric: Metric, runner: Runner, feed: Feed) -> Scores:
    """Measure a model, and find out how each sample counts.

    A metric that runs other inputs than the samples as they are, or that keeps a state from one to the next, is one
    number.

    Raises:
        OnnxpressError: what the metric raises.
    """
    began = time.perf_counter()
    recorder = _Recorder(runner)
    value = metric(cast(Runner, recorder), _recorded(feed, recorder))
    seconds = time.perf_counter() - began
    pieces = recorder.pieces()
    if not math.isfinite(value) or (pieces is None and not recorder.crowded):
        return Scores(value, None, None, seconds)
    if pieces is None:
        rows = _batch_by_batch(metric, runner, feed)
        fits = rows is not None and _same(float(rows.mean()), value, rows)
        return Scores(value, rows if fits else None, None, seconds)
    if not _same(replay(metric, pieces), value):
        return Scores(value, None, None, seconds)
    rows = _each(metric, pieces)
    if rows is not None and _same(float(rows.mean()), value, rows) and _adds_up(metric, pieces, rows):
        return Scores(value, rows, None, seconds)
    return Scores(value, None, pieces, seconds)


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric that keeps how each sample counts, each time it is taken."""

    metric: Metric
    taken: list[Scores] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the metric."""
        return self.metric.name

    def __call__(self, runner: Runner, feed: Feed, /) -> float:
        """Take it."""
        self.taken.append(score(self.metric, runner, feed))
        return self.taken[-1].value


def replay(metric: Metric, pieces: Sequence[Piece]) -> float:
    """The metric of what a model gave for some samples; NaN where it cannot be taken of them."""
    given = {id(each.sample.batch): each.outputs for each in pieces}
    labels = [np.atleast_1d(each.sample.labels) for each in pieces if each.sample.labels is not None]
    known = np.concatenate(labels) if labels and len(labels) == len(pieces) else None
    feed = Feed([each.sample for each in pieces], count=len(pieces), labels=known)
    try:
        return metric(cast(Runner, _Replayed(given)), feed)
    except Exception:  # whatever a metric does with samples that it was not made for, as ones of a single class
        return math.nan


def _batch_by_batch(metric: Metric, runner: Runner, feed: Feed) -> NDArray[np.float64] | None:
    """The metric of each sample alone, where all outputs together are too many to keep; the model runs once more.

    None where the metric is none of each sample alone.
    """
    found: list[NDArray[np.float64]] = []
    for sample in feed.samples():
        recorder = _Recorder(runner)
        try:
            metric(cast(Runner, recorder), _recorded(Feed([sample], count=1, labels=sample.labels), recorder))
        except Exception:  # as in `replay`: it was made for all batches together
            return None
        pieces = recorder.pieces()
        rows = None if pieces is None else _each(metric, pieces)
        if pieces is None or rows is None or not _adds_up(metric, pieces, rows):
            return None
        found.append(rows)
    return np.concatenate(found) if found else None


class _Unknown(Exception):
    """A metric asks for what was not recorded."""


class _Recorder:
    """A runner that keeps what it gives for the samples of a feed."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._given: dict[int, tuple[int, Sample, dict[str, Array]]] = {}
        self._room = KEPT_BYTES
        self._whole = True

    @property
    def crowded(self) -> bool:
        """Whether there was more to keep than there is room for."""
        return self._room < 0

    def expect(self, position: int, sample: Sample) -> None:
        """Take in a batch that may be run next; it stays alive, so nothing else gets its identity."""
        self._room -= _nbytes(sample.batch.values())
        if self._room < 0:
            self._whole = False
            self._given.clear()
        if self._whole:
            self._given[id(sample.batch)] = position, sample, {}

    def run(self, batch: Batch, *, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As the runner does."""
        result = self._runner.run(batch, outputs=outputs)
        known = self._given.get(id(batch))
        self._whole &= known is not None
        self._room -= _nbytes(result.values())
        if known is not None:
            known[2].update(result)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def pieces(self) -> tuple[Piece, ...] | None:
        """All that was run, where that is the samples as they are, each once: else some would count twice."""
        found = [each for each in self._given.values() if each[2]]
        once = len({position for position, _, _ in found}) == len(found)
        if not self._whole or self._room < 0 or not found or not once:
            return None
        return tuple(Piece(sample, outputs, _rows(sample, outputs)) for _, sample, outputs in found)


class _Replayed:
    """What stands in for a runner: it gives what was recorded."""

    def __init__(self, given: Mapping[int, Mapping[str, Array]]) -> None:
        self._given = given
        self.output_names = tuple(next(iter(given.values()), {}))

    def run(self, batch: Batch, *, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """What was given for a batch.

        Raises:
            _Unknown: another batch, or an output that nobody asked for before.
        """
        known = self._given.get(id(batch))
        if known is None or any(name not in known for name in outputs or ()):
            raise _Unknown
        return dict(known) if outputs is None else {name: known[name] for name in outputs}

    def __getattr__(self, name: str) -> Any:
        raise _Unknown(name)


def _recorded(feed: Feed, recorder: _Recorder) -> Feed:
    # Labels come from the feed itself: asked for here, they would be a walk in which nothing is run.
    return Feed(_Told(feed, recorder.expect), count=feed.count, labels=feed.labels, made_up=feed.made_up)


@dataclass(frozen=True, slots=True)
class _Told:
    """Samples that are reported as they pass."""

    feed: Feed
    tell: Callable[[int, Sample], None]

    def __iter__(self) -> Any:
        for position, sample in enumerate(self.feed.samples()):
            own = Sample(dict(sample.batch), sample.labels)
            self.tell(position, own)
            yield own


def _each(metric: Metric, pieces: Sequence[Piece]) -> NDArray[np.float64] | None:
    """The metric of each sample alone; None where it cannot be taken, or takes too long."""
    began, found = time.perf_counter(), []
    for piece in pieces:
        alone = [piece] if piece.rows is None else [piece.part(np.array([row])) for row in range(piece.rows)]
        for each in alone:
            found.append(replay(metric, [each]))
            if not math.isfinite(found[-1]) or time.perf_counter() - began > SECONDS:
                return None
    return np.array(found)


def _adds_up(metric: Metric, pieces: Sequence[Piece], rows: NDArray[np.float64]) -> bool:
    """Whether the metric of some samples, some of them twice, is the mean of their own."""
    counts = [each.rows or 1 for each in pieces]
    starts = np.cumsum([0, *counts])
    chosen, expected = [], []
    for index, piece in enumerate(pieces[::2]):
        picks = np.array([0, *range(0, counts[2 * index], 2)])
        chosen.append(piece if piece.rows is None else piece.part(picks))
        expected.extend(rows[starts[2 * index] + (picks if piece.rows is not None else np.zeros(1, np.int64))])
    return _same(replay(metric, chosen), float(np.mean(expected)), rows)


def _rows(sample: Sample, outputs: Mapping[str, Array]) -> int | None:
    """How many samples a batch holds, where all its arrays have one entry for each."""
    arrays = [*sample.batch.values(), *outputs.values(), *([] if sample.labels is None else [sample.labels])]
    lengths = {len(each) if each.ndim else 0 for each in arrays}
    return lengths.pop() if len(lengths) == 1 and 0 not in lengths else None


def _same(first: float, second: float, rows: NDArray[np.float64] | None = None) -> bool:
    """Whether two numbers differ by rounding alone, in sums of scores where there are some."""
    size = abs(second) if rows is None else max(abs(second), float(np.abs(rows).max()))
    return math.isfinite(first) and abs(first - second) <= _ALIKE * size


def _nbytes(arrays: Any) -> int:
    return sum(each.nbytes for each in arrays)
