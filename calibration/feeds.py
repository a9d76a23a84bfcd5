"""Feeds: samples for a model, batch by batch, as often as asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxpress.calibration.arrays import Memory, Npz, Store, read_npy
from onnxpress.calibration.batches import Array, Batch, Sample, names_of
from onnxpress.calibration.folders import Folder
from onnxpress.calibration.plugins import is_reference, load_function
from onnxpress.calibration.sources import Checked, FunctionSource, Numeric, Part, reiterable
from onnxpress.calibration.stacks import Stack
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec

__all__ = ["Batch", "Feed", "open_feed"]


class Feed:
    """Samples of a model that can be walked through again and again.

    `for batch in feed` starts afresh each time and yields one `Batch` after the other: arrays by input name, in the
    dtype the model declares, not to be written into. `samples()` yields the labels with them.

    Attributes:
        count: number of batches; None where only a walk would tell.
        warnings: what the user must know about these samples.
        made_up: whether nobody gave them: they show that a model runs, and teach nothing.
    """

    def __init__(
        self,
        source: Iterable[Sample],
        *,
        count: int | None = None,
        labels: Array | None = None,
        warnings: Sequence[str] = (),
        made_up: bool = False,
    ) -> None:
        """Wrap samples that are known to fit; `open_feed` checks those that are not.

        Args:
            source: re-iterable samples.
            count: number of batches, where known.
            labels: of all samples in order, where they are known without a walk.
            warnings: what the user must know about these samples.
            made_up: whether nobody gave them.
        """
        self._source = source
        self._labels = labels
        self.count = count
        self.warnings = tuple(warnings)
        self.made_up = made_up

    def __iter__(self) -> Iterator[Batch]:
        return (sample.batch for sample in self._source)

    def samples(self) -> Iterator[Sample]:
        """Batches with the labels of their rows, from the start.

        Raises:
            FeedError: a batch does not fit the model, or cannot be read.
        """
        return iter(self._source)

    @cached_property
    def labels(self) -> Array | None:
        """Labels of all samples, concatenated in order on axis 0; None where the first batch has none.

        Walks through the samples once where the labels come with the batches.

        Raises:
            FeedError: a later batch has no labels.
        """
        if self._labels is not None:
            return self._labels
        pieces: list[Array] = []
        for sample in self._source:
            if sample.labels is None:
                if not pieces:
                    return None
                raise FeedError(f"the first {len(pieces)} batches have labels, the next has none; label all or none")
            pieces.append(np.atleast_1d(sample.labels))
        return np.concatenate(pieces) if pieces else None

    def take(self, n: int) -> Feed:
        """The first `n` batches, or all where there are fewer.

        Raises:
            ConfigError: `n` is below 1.
        """
        _at_least_one(n, "batches of a feed")
        return self._part(Part(self._source, stop=n), None if self.count is None else min(n, self.count))

    def split(self, n: int) -> tuple[Feed, Feed]:
        """Part the feed into `n` batches, say for calibration, and all others, say for judging.

        The `n` are spread evenly over the feed where its length is known, because samples are often sorted by class;
        else they are the first.

        Raises:
            ConfigError: `n` is below 1.
            FeedError: the feed is known to have no batch left for the other part.
        """
        _at_least_one(n, "batches of a feed")
        if self.count is None:
            return self.take(n), self._part(Part(self._source, start=n), None)
        if n >= self.count:
            raise FeedError(f"a feed of {self.count} batches cannot give {n} and keep some; give more samples")
        chosen = frozenset(index * self.count // n for index in range(n))
        rest = frozenset(range(self.count)) - chosen
        return self._part(Part(self._source, keep=chosen), n), self._part(Part(self._source, keep=rest), len(rest))

    def spread(self, n: int, *, rows: int | None = None) -> Iterator[Batch]:
        """A few batches, spread evenly over the feed where its length is known; else the first.

        Args:
            n: batches at most.
            rows: with so many rows no further batch follows, since a large one is enough; None takes all `n`.

        Raises:
            ConfigError: `n` is below 1.
            FeedError: there are no samples.
        """
        seen = 0
        for batch in self if self.count is not None and self.count <= n else self.split(n)[0]:
            yield batch
            seen += max((len(array) for array in batch.values() if array.ndim), default=1)
            if rows is not None and seen >= rows:
                return
        if not seen:
            raise FeedError("the feed holds no samples; give at least one")

    def numeric(self) -> Feed:
        """The same samples, refused where they are no numbers: what learns from them would not notice.

        Raises:
            FeedError: while it is walked, at NaN or +inf in a float input; −inf is what masks hold.
        """
        return Feed(Numeric(self._source), count=self.count, warnings=self.warnings, made_up=self.made_up)

    def _part(self, source: Iterable[Sample], count: int | None) -> Feed:
        return Feed(source, count=count, warnings=self.warnings, made_up=self.made_up)


def open_feed(
    source: object,
    *,
    inputs: Sequence[InputSpec],
    batch_size: int | None = None,
    limit: int | None = None,
) -> Feed:
    """Open samples for a model. Every batch is checked as it passes, the first one now.

    Args:
        source: one of

            - a dict of arrays by input name, stacked on axis 0 (see `Stack`), and perhaps `labels`;
            - a path to an .npz file of such arrays, or to an .npy file for a model of one input;
            - a path to a folder of .npy or .npz files, a batch a file (see `Folder`);
            - `module:function`: what the function returns is one of the following, and it is called for every walk;
            - an iterable of dicts of arrays, with `labels` or without; a one-shot iterator is kept in a temporary file
              of at most 4 GiB (see `Spool`);
            - ONNX Runtime's `CalibrationDataReader`; one without `rewind` is kept likewise;
            - a `Feed`.
        inputs: what the model declares.
        batch_size: rows a batch for stacked arrays of a model that leaves it open; by default at most 32 rows or 4 MiB.
        limit: samples to use at most: rows where stacked arrays are cut, else batches.

    Raises:
        FeedError: nothing there, nothing in it, or samples that do not fit the model.
        ConfigError: `batch_size` or `limit` below 1, or a `batch_size` where batches are made already.
    """
    for value, what in ((batch_size, "rows in a batch"), (limit, "samples")):
        if value is not None:
            _at_least_one(value, what)
    feed = _open(source, tuple(inputs), batch_size, limit)
    if next(feed.samples(), None) is None:
        raise FeedError(f"{_name(source)} holds no samples; give at least one")
    return feed


def _open(source: object, inputs: tuple[InputSpec, ...], batch_size: int | None, limit: int | None) -> Feed:
    store = _open_store(source, inputs)
    if store is not None:
        stack = Stack(store, inputs, batch_size=batch_size, limit=limit)
        checked = Checked(stack, inputs, store.name)
        return Feed(checked, count=stack.count, labels=stack.labels, warnings=stack.warnings)
    if batch_size is not None:
        raise ConfigError(f"batch_size {batch_size} is for stacked arrays; this feed has batches, leave it out")
    feed = _open_batches(source, inputs)
    return feed if limit is None else feed.take(limit)


def _open_store(source: object, inputs: Sequence[InputSpec]) -> Store | None:
    """Stacked arrays, where `source` is such."""
    if isinstance(source, Mapping):
        try:
            arrays = {str(name): np.asarray(array) for name, array in source.items()}
        except (ValueError, TypeError) as error:
            raise FeedError(f"{_name(source)} cannot be stacked: {error}; give rows of one shape") from error
        return Memory(arrays, name=_name(source))
    path = Path(source) if isinstance(source, str | Path) else None
    if path is None or not path.is_file():
        return None
    if path.suffix == ".npz":
        return Npz(path)
    if path.suffix == ".npy":
        # The array has no name of its own, whatever the file is called.
        return Memory({inputs[0].name if len(inputs) == 1 else path.stem: read_npy(path)}, name=path.name)
    raise FeedError(f"{path} is neither .npz nor .npy; write it with numpy.savez, an array for each input")


def _open_batches(source: object, inputs: tuple[InputSpec, ...]) -> Feed:
    """Samples that come in batches already."""
    name = _name(source)
    if isinstance(source, Feed):
        checked = Checked(reiterable(source), inputs, name)
        return Feed(
            checked, count=source.count, labels=source._labels, warnings=source.warnings, made_up=source.made_up
        )
    if not isinstance(source, str | Path):
        count = len(source) if isinstance(source, Sequence) else None
        return Feed(Checked(reiterable(source), inputs, name), count=count)
    if Path(source).is_dir():
        folder = Folder(Path(source), inputs)
        return Feed(Checked(folder, inputs, name), count=folder.count)
    if isinstance(source, str) and is_reference(source):
        try:
            function = load_function(source)
        except ConfigError as error:
            raise FeedError(str(error)) from error
        return Feed(Checked(FunctionSource(source, function), inputs, name))
    raise FeedError(
        f"no file, folder or module:function {name}; check the path, or write an .npz file with numpy.savez that holds "
        f"the model's inputs: {names_of(inputs)}"
    )


def _name(source: object) -> str:
    """What errors call a source."""
    if isinstance(source, str | Path):
        return str(source)
    return "the arrays" if isinstance(source, Mapping) else f"the {type(source).__name__} feed"


def _at_least_one(value: int, what: str) -> None:
    if value < 1:
        raise ConfigError(f"{value} {what} is too few; give 1 or more")
