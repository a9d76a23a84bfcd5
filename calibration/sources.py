"""Where samples come from: the user's function, reader or iterable; a part of those; and checks as they pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np

from onnxpress.calibration.batches import Sample, as_sample
from onnxpress.calibration.plugins import blame, by_signal
from onnxpress.calibration.spool import Spool
from onnxpress.rewriter.errors import FeedError, OnnxpressError
from onnxpress.rewriter.specs import InputSpec


@runtime_checkable
class Reader(Protocol):
    """ONNX Runtime's `CalibrationDataReader`, by its shape."""

    def get_next(self) -> object:
        """The next batch; None at the end."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """What yields batches with labels, as `Feed` does."""

    def samples(self) -> Iterator[Sample]:
        """Batches with the labels of their rows, from the start."""
        ...


class RewoundReader:
    """A reader with `rewind`: every walk rewinds it first.

    A reader has one position, so a walk that goes on after another one began is refused.
    """

    def __init__(self, reader: Reader, rewind: Callable[[], object]) -> None:
        """Wrap `reader`, which `rewind` sets back to its first batch."""
        self._reader = reader
        self._rewind = rewind
        self._walk = 0

    def __iter__(self) -> Iterator[object]:
        self._walk += 1
        mine = self._walk
        self._rewind()
        while (batch := self._reader.get_next()) is not None:
            yield batch
            if mine != self._walk:
                raise FeedError("a CalibrationDataReader cannot be walked through twice at once; give a function")


class FunctionSource:
    """What `module:function` returns, called anew for every walk."""

    def __init__(self, reference: str, function: Callable[..., object]) -> None:
        """Wrap `function`, which errors call `reference`."""
        self._reference = reference
        self._function = function

    def __iter__(self) -> Iterator[object]:
        try:
            yield from reiterable(self._function())
        except OnnxpressError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's function does
            if by_signal(error):
                raise
            raise FeedError(blame(self._reference, error)) from error


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the samples of a source, by position."""

    source: Iterable[Sample]
    start: int = 0
    stop: int | None = None
    keep: frozenset[int] | None = None

    def __iter__(self) -> Iterator[Sample]:
        for position, sample in enumerate(islice(self.source, self.start, self.stop)):
            if self.keep is None or position in self.keep:
                yield sample


@dataclass(frozen=True, slots=True)
class Numeric:
    """Samples whose floats are looked at as they pass."""

    source: Iterable[Sample]

    def __iter__(self) -> Iterator[Sample]:
        for position, sample in enumerate(self.source):
            for name, array in sample.batch.items():
                wrong = int(np.count_nonzero(~(array < np.inf))) if array.dtype.kind == "f" else 0
                if wrong:
                    raise FeedError(
                        f"batch {position} of the samples holds {wrong} NaN or infinite numbers in input {name!r}; "
                        "mend or drop these samples"
                    )
            yield sample


@dataclass(frozen=True, slots=True)
class Checked:
    """Raw batches, each checked against the model as it passes."""

    raw: Iterable[object]
    inputs: tuple[InputSpec, ...]
    name: str

    def __iter__(self) -> Iterator[Sample]:
        for position, entries in enumerate(self.raw):
            yield as_sample(entries, self.inputs, where=f"batch {position} of {self.name}")


def reiterable(source: object) -> Iterable[object]:
    """Raw batches that can be walked through again and again.

    Args:
        source: a feed, a `CalibrationDataReader`, or any iterable; a one-shot one is spooled.

    Raises:
        FeedError: `source` yields nothing at all.
    """
    if isinstance(source, Sampled):
        return _Samples(source)
    if isinstance(source, Reader):
        rewind = getattr(source, "rewind", None)
        return RewoundReader(source, rewind) if callable(rewind) else Spool(iter(source.get_next, None))
    if not isinstance(source, Iterable):
        raise FeedError(f"a {type(source).__name__} is no feed; give an iterable of dicts of arrays by input name")
    return Spool(source) if isinstance(source, Iterator) else source


class _Samples:
    def __init__(self, source: Sampled) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Sample]:
        return self._source.samples()
