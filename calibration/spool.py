"""A one-shot iterator made re-iterable: what it yields is kept in a temporary file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import FeedError

IN_MEMORY = 64 * 2**20
"""Bytes kept in memory before the temporary file goes to disk."""

LIMIT = 4 * 2**30
"""Bytes kept at all, unless stated otherwise."""


class _Stored(NamedTuple):
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Spool:
    """Batches of a one-shot iterator, drawn when first asked for and then kept.

    The first 64 MiB stay in memory, beyond that all goes to a temporary file that vanishes with the spool; more than
    `limit` bytes are refused. Walks may be broken off, repeated and nested.
    """

    def __init__(self, batches: Iterator[object], *, limit: int = LIMIT) -> None:
        """Take over `batches`, which must not be drawn from elsewhere any more."""
        self._batches = batches
        self._limit = limit
        with ExitStack() as stack:
            self._file = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))
            weakref.finalize(self, stack.pop_all().close)
        self._end = 0
        self._index: list[dict[str, _Stored]] = []

    def __iter__(self) -> Iterator[dict[str, Array]]:
        position = 0
        while position < len(self._index) or self._draw():
            yield {name: self._read(stored) for name, stored in self._index[position].items()}
            position += 1

    def _draw(self) -> bool:
        try:
            batch = next(self._batches)
        except StopIteration:
            return False
        if not isinstance(batch, Mapping):
            raise FeedError(f"the feed yields a {type(batch).__name__}; let it yield dicts of arrays by input name")
        self._index.append({str(name): self._write(name, value) for name, value in batch.items() if value is not None})
        return True

    def _write(self, name: object, value: object) -> _Stored:
        array = np.asarray(value)
        if array.dtype == object:
            array = array.astype(str)  # text; bytes of Python objects mean nothing
        stored = _Stored(self._end, array.dtype, array.shape)
        self._end += array.nbytes
        if self._end > self._limit:
            raise FeedError(
                f"a one-shot feed may hold {self._limit / 2**30:g} GiB, input {name!r} goes beyond; "
                "give a function module:function, which is called anew for each walk"
            )
        self._file.seek(stored.offset)
        self._file.write(array.tobytes())
        return stored

    def _read(self, stored: _Stored) -> Array:
        self._file.seek(stored.offset)
        size = stored.dtype.itemsize * int(np.prod(stored.shape, dtype=np.int64))
        return np.frombuffer(self._file.read(size), dtype=stored.dtype).reshape(stored.shape)
