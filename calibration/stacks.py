"""Arrays that stack many samples, cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise, repeat

import numpy as np

from onnxpress.calibration.arrays import Entry, Store
from onnxpress.calibration.batches import LABELS, Array, Sample, check_inputs, check_shape, rename_lone
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec

MOST_ROWS = 32
BATCH_BYTES = 4 * 2**20
"""A batch whose size nobody states has at most `MOST_ROWS` rows and, beyond one row, `BATCH_BYTES` of input."""


class _Cut(Enum):
    ROWS = auto()  # axis 0 is the batch axis: several rows a batch
    WHOLE = auto()  # one axis more than declared: one slice is a whole batch
    SAME = auto()  # the same array in every batch


@dataclass(slots=True)
class _Lane:
    """How one stored array becomes the batches of one input."""

    spec: InputSpec
    stored: str
    entry: Entry
    cut: _Cut
    sizes: list[int] = field(default_factory=list)  # slices along axis 0 of each batch

    @property
    def length(self) -> int:
        return self.entry.shape[0]

    @property
    def fixed(self) -> int | None:
        """Rows the model insists on; None where it leaves them open."""
        first = self.spec.shape[0] if self.spec.shape else None
        return first if isinstance(first, int) else None

    @property
    def one_batch(self) -> bool:
        """Whether the array can serve every batch: what the model insists on, or one value."""
        return self.length == self.fixed or (self.fixed is None and self.entry.shape == (1,))


class Stack:
    """Batches cut from stored arrays, in memory one at a time.

    Attributes:
        count: number of batches.
        labels: of all samples in order; None where there are none.
        warnings: samples that were left over.
    """

    def __init__(
        self, store: Store, inputs: Sequence[InputSpec], *, batch_size: int | None = None, limit: int | None = None
    ) -> None:
        """Decide how to cut each array.

        An array with the declared rank is cut along axis 0: as many rows as the model insists on, `batch_size` where
        it leaves them open. An array with one axis more is a stack of whole batches. A scalar, or an array of one
        batch where others have more, is the same in every batch.

        Args:
            store: arrays named after the inputs, and `labels`.
            inputs: what the model declares.
            batch_size: rows a batch where the model leaves it open; None chooses.
            limit: samples to use at most; a whole batch counts as one.

        Raises:
            FeedError: arrays that do not fit the model or one another.
            ConfigError: a `batch_size` the model forbids.
        """
        self._store = store
        self._where = store.name
        self._lanes = _lanes(store, inputs, self._where)
        if batch_size is not None and any(lane.cut is _Cut.WHOLE for lane in self._lanes):
            raise ConfigError(f"batch_size {batch_size}: {self._where} stacks whole batches; leave batch_size out")
        every = _cut_whole(self._lanes, self._where) or _cut_rows(self._lanes, batch_size, limit, self._where)
        self.count = every if limit is None else min(every, limit)
        self.warnings = tuple(_left_over(lane, self._where) for lane in self._lanes if _left_over(lane, self._where))
        self._label_slices: list[Array] | None = None
        if LABELS in store.entries and all(lane.stored != LABELS for lane in self._lanes):
            self._label_slices = self._cut_labels(store.read(LABELS), every)
        self.labels = np.concatenate(self._label_slices) if self._label_slices else None

    def __iter__(self) -> Iterator[Sample]:
        streams = {lane.spec.name: self._stream(lane) for lane in self._lanes}
        for position in range(self.count):
            batch = {name: next(stream) for name, stream in streams.items()}
            yield Sample(batch, None if self._label_slices is None else self._label_slices[position])

    def _stream(self, lane: _Lane) -> Iterator[Array]:
        if lane.cut is _Cut.SAME:
            array = self._store.read(lane.stored)
            return repeat(array.reshape(1) if lane.spec.shape and array.ndim == 0 else array)
        slices = self._store.slices(lane.stored, lane.sizes[: self.count])
        return (piece[0] for piece in slices) if lane.cut is _Cut.WHOLE else slices

    def _cut_labels(self, labels: Array, every: int) -> list[Array]:
        whole = any(lane.cut is _Cut.WHOLE for lane in self._lanes)
        lead = None if whole else next((lane for lane in self._lanes if lane.cut is _Cut.ROWS), None)
        length = len(labels) if labels.ndim else 0
        if lead is not None and length == lead.length:
            bounds = np.cumsum([0, *lead.sizes[: self.count]])
            return [labels[begin:end] for begin, end in pairwise(bounds)]
        if lead is not None or length == 0 or length % every:
            samples = every if lead is None else lead.length
            raise FeedError(f"{self._where} has {length} labels for {samples} samples; give one label a sample")
        if length == every:
            return [np.atleast_1d(label) for label in labels[: self.count]]
        size = length // every
        return [labels[position * size : (position + 1) * size] for position in range(self.count)]


def _lanes(store: Store, inputs: Sequence[InputSpec], where: str) -> list[_Lane]:
    renamed = rename_lone(list(store.entries), inputs)
    stored = {name: entry for entry, name in renamed.items()}
    names = set(stored) if any(spec.name == LABELS for spec in inputs) else set(stored) - {LABELS}
    check_inputs(names, inputs, where=where)
    return [_lane(spec, stored[spec.name], store.entries[stored[spec.name]], where) for spec in inputs]


def _lane(spec: InputSpec, stored: str, entry: Entry, where: str) -> _Lane:
    shape, declared = entry.shape, spec.shape
    if declared is None:
        return _Lane(spec, stored, entry, _Cut.ROWS if shape else _Cut.SAME)
    if shape == () and (declared == () or (len(declared) == 1 and declared[0] in {1, None} | _names(declared))):
        return _Lane(spec, stored, entry, _Cut.SAME)
    if len(shape) == len(declared) + 1:
        check_shape(shape[1:], spec, where=f"{where}, as a stack of whole batches")
        return _Lane(spec, stored, entry, _Cut.WHOLE)
    lane = _Lane(spec, stored, entry, _Cut.ROWS)
    rows = () if len(shape) != len(declared) else (lane.fixed or shape[0], *shape[1:])
    check_shape(rows or shape, spec, where=where)
    return lane


def _names(dims: tuple[int | str | None, ...]) -> set[int | str | None]:
    return {dim for dim in dims if isinstance(dim, str)}


def _cut_whole(lanes: Sequence[_Lane], where: str) -> int:
    """Cut along the stacks of whole batches; return the number of batches, 0 where no lane is such a stack."""
    stacks = [lane for lane in lanes if lane.cut is _Cut.WHOLE]
    if not stacks:
        return 0
    count = _agree({lane.stored: lane.length for lane in stacks}, "batches", where)
    for lane in lanes:
        if lane.cut is _Cut.WHOLE:
            lane.sizes = [1] * count
        elif lane.cut is _Cut.ROWS and lane.length % count == 0 and lane.fixed in (None, lane.length // count):
            lane.sizes = [lane.length // count] * count
        elif lane.cut is _Cut.ROWS and lane.one_batch:
            lane.cut = _Cut.SAME
        elif lane.cut is _Cut.ROWS:
            raise FeedError(
                f"{where}: {lane.stored!r} has {lane.length} rows for {count} batches; give as many of each"
            )
    return count


def _cut_rows(lanes: Sequence[_Lane], batch_size: int | None, limit: int | None, where: str) -> int:
    """Cut along axis 0; return the number of batches."""
    every = [lane for lane in lanes if lane.cut is _Cut.ROWS]
    many = [lane for lane in every if not lane.one_batch]
    rows = many or [lane for lane in every if lane.fixed is None] or every
    for lane in every:
        if all(lane is not row for row in rows):
            lane.cut = _Cut.SAME
    if not rows:
        return 1
    fixed = next((lane.fixed for lane in rows if lane.fixed), None)
    if fixed is not None and batch_size not in (None, fixed):
        raise ConfigError(f"batch_size {batch_size}: the model takes {fixed} rows a batch; leave batch_size out")
    size = fixed or batch_size or _default_rows(lanes)
    whole = fixed is not None  # such a model cannot take a last batch of fewer rows
    counts = {lane.stored: lane.length // (lane.fixed or size) if whole else lane.length for lane in rows}
    agreed = _agree(counts, f"batches of {size} rows" if whole else "rows", where)
    if not whole:
        agreed = agreed if limit is None else min(agreed, limit)
    elif limit is not None:
        agreed = min(agreed, math.ceil(limit / size))
    for lane in rows:
        per = lane.fixed or size
        lane.sizes = [per] * agreed if whole else [min(per, agreed - begin) for begin in range(0, agreed, per)]
    return len(rows[0].sizes)


def _agree(counts: Mapping[str, int], unit: str, where: str) -> int:
    """The number all arrays agree on."""
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise FeedError(f"{where} holds different numbers of {unit}: {text}; give as many of each")
    name, count = next(iter(counts.items()))
    if count == 0:
        raise FeedError(f"{where}: {name!r} holds no {unit}; give at least one")
    return count


def _default_rows(lanes: Sequence[_Lane]) -> int:
    """Rows a batch, where neither model nor caller says."""
    cut = [lane for lane in lanes if lane.cut is _Cut.ROWS]
    names = {lane.spec.shape[0] for lane in cut if lane.spec.shape and lane.spec.shape[0] not in (None, "?")}
    named, unnamed = set(), set()
    for lane in lanes:
        if lane.cut is _Cut.SAME and lane.spec.shape:
            for dim, size in zip(lane.spec.shape, lane.entry.shape, strict=False):
                if dim in names:
                    named.add(size)
                elif dim in (None, "?"):
                    unnamed.add(size)
    # An array that stays the same may have the batch axis elsewhere, as the state of a recurrent network has.
    if named or unnamed:
        sizes = named or unnamed
        return sizes.pop() if len(sizes) == 1 else 1
    row_bytes = sum(lane.spec.dtype.itemsize * math.prod(lane.entry.shape[1:]) for lane in cut)
    return max(1, min(MOST_ROWS, BATCH_BYTES // max(1, row_bytes)))


def _left_over(lane: _Lane, where: str) -> str:
    size = lane.fixed
    if lane.cut is not _Cut.ROWS or not size or lane.length % size == 0:
        return ""
    return f"{where}: the last {lane.length % size} rows of {lane.stored!r} fill no batch of {size} and are left out"
