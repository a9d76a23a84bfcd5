"""Tensors observed over parts of the samples, on as many workers as there are."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.observers import Histogram, MinMax, MovingAverage, Observer, Wish
from onnxpress.calibration.stream import observe
from onnxpress.passes.base import Workbench
from onnxpress.passes.jobs import Parcel, each, workers
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import values_of

EXACT = (MinMax, Histogram, MovingAverage)
"""Observers that are the same, bit for bit, however the samples are parted."""

PARTS = 2
"""Of the samples, for each worker: each opens the model anew."""

UNKNOWN = 32
"""Batches of a part where nobody knows how many there are."""

HELD = 64 * 2**20
"""Bytes of samples that go to a worker at once; one batch at least."""

_MODEL = 2**30
"""Bytes of weights that can be sent to workers: of more, ONNX makes several files."""

_Bytes = NDArray[np.uint8]


def observe_in_shards(model: Model, observers: Mapping[str, Observer], bench: Workbench) -> None:
    """Show tensors of a model to observers, over all calibration samples.

    What they hold at the end is the same as of one walk through the samples, with any number of workers. One worker
    walks, and so it is with observers or models that cannot be parted.

    Args:
        model: a model as it is.
        observers: of tensors of the main graph, by name; they have seen nothing yet.
        bench: brings the samples. Each worker has as many threads as it says; one, where that is left open.

    Raises:
        FeedError: there are no samples, or they do not fit.
        ModelError: a model that ONNX Runtime cannot run.
        EngineError: workers were lost, cannot be reached, or lack onnxpress.
    """
    if bench.feed is None:
        raise FeedError("ranges of activations come from samples; give some with --data, or quantize-dynamic instead")
    left = observers
    if workers() > 1 and _is_small(model) and all(isinstance(one, EXACT) for one in observers.values()):
        left = _observe(model, observers, bench.feed, bench)
    observe(model, left, bench.feed, providers=bench.providers, threads=bench.threads, progress=bench.progress)


def _is_small(model: Model) -> bool:
    return sum(values_of(constant).nbytes for constant in model.constants()) <= _MODEL


def _observe(model: Model, observers: Mapping[str, Observer], feed: Feed, bench: Workbench) -> Mapping[str, Observer]:
    """Let workers walk; gives the observers that have to see the samples in one walk.

    These are those of tensors with NaN or infinities: from the first of them on, a walk looks at the tensor itself, and
    so takes other samples of it.
    """
    first = next(iter(feed), None)
    if first is None:
        return observers
    length, count = _length(feed, first)
    found = copy.deepcopy(dict(observers))
    walk = _Walk(observers, bench.providers, bench.threads or 1)
    parts = each(
        walk, _parts(feed, length), progress=bench.progress, label="ranges", total=count, shared=(_content(model),)
    )
    for seen in parts:
        for name, one in seen.items():
            for part in one.seen if isinstance(one, _Kept) else [one]:
                found[name].merge(part)
    odd = {name: observers[name] for name, one in found.items() if _is_odd(one)}
    for name in observers.keys() - odd.keys():
        observers[name].merge(found[name])
    return odd


def _length(feed: Feed, first: Batch) -> tuple[int, int | None]:
    """Batches of a part, and how many parts there are, where that is known."""
    most = max(1, HELD // max(1, _Part((first,)).nbytes))
    if feed.count is None:
        return min(most, UNKNOWN), None
    length = min(most, math.ceil(feed.count / (PARTS * workers())))
    return length, math.ceil(feed.count / length)


def _parts(feed: Feed, length: int) -> Iterator[_Part]:
    batches = iter(feed)
    while part := tuple(islice(batches, length)):
        yield _Part(part)


def _content(model: Model) -> _Bytes:
    """The file of a model, as an array, which is sent to each worker once."""
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        model.save(path, external_data=False)
        return np.fromfile(path, np.uint8)


def _is_odd(observer: Observer) -> bool:
    return isinstance(observer, EXACT) and observer.ignored > 0


@dataclass(frozen=True, slots=True, eq=False)
class _Part(Parcel):
    """Some of the samples."""

    batches: tuple[Batch, ...]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for batch in self.batches for array in batch.values())


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk through some of the samples.

    Attributes:
        observers: fresh ones.
        providers: of ONNX Runtime.
        threads: of ONNX Runtime.
    """

    observers: Mapping[str, Observer]
    providers: tuple[str, ...]
    threads: int

    def __call__(self, part: _Part, model: _Bytes) -> dict[str, Observer]:
        """What the observers saw of these batches."""
        seen: dict[str, Observer] = {
            name: _Kept(one) if isinstance(one, MovingAverage) else copy.deepcopy(one)
            for name, one in self.observers.items()
        }
        observe(model.tobytes(), seen, part.batches, providers=self.providers, threads=self.threads)
        return seen


class _Kept:
    """What a mean saw of each batch: sums of floats depend on their order, so they are taken together at the end."""

    def __init__(self, empty: MovingAverage) -> None:
        self.axis = empty.axis
        self.seen: list[MovingAverage] = []

    def update(self, array: Array, /) -> None:
        self._next().update(array)

    def reductions(self, rank: int | None, /) -> Sequence[Wish]:
        return MovingAverage(axis=self.axis).reductions(rank)

    def update_reduced(self, values: Sequence[Array], /) -> None:
        self._next().update_reduced(values)

    def merge(self, other: Self, /) -> None:
        self.seen += other.seen

    def state(self) -> dict[str, Array]:
        whole = MovingAverage(axis=self.axis)
        for one in self.seen:
            whole.merge(one)
        return whole.state()

    def _next(self) -> MovingAverage:
        self.seen.append(MovingAverage(axis=self.axis))
        return self.seen[-1]
