"""Where raw batches come from: the user's function, reader or iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.plugins import blame, by_signal
from onnxpress.calibration.spool import Spool
from onnxpress.rewriter.errors import FeedError, OnnxpressError


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
