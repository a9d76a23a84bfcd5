"""The same samples for every tool: drawn evenly from a feed, written as files that need no code of ours to be read."""

from __future__ import annotations

import zipfile
from itertools import islice
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Batch
from onnxpress.calibration.feeds import Feed

ROWS = 4
"""Rows of a calibration batch where batches can be cut."""


def spread(feed: Feed, count: int) -> list[Batch]:
    """At most `count` batches from evenly spread places of a feed."""
    total = sum(1 for _ in feed)
    wanted = {(2 * k + 1) * total // (2 * count) for k in range(count)}
    return [batch for k, batch in enumerate(islice(feed, total)) if k in wanted]


def calibration(feed: Feed, samples: int) -> list[Batch]:
    """About `samples` rows in batches of `ROWS`; a batch whose inputs do not all have rows on axis 0 stays whole."""
    rows = min(ROWS, _rows(next(iter(feed))) or ROWS)
    batches = [cut(batch, rows) for batch in spread(feed, -(-samples // rows))]
    enough, kept = 0, []
    for batch in batches:
        if enough < samples:
            kept.append(batch)
            enough += _rows(batch) or rows
    return kept


def cut(batch: Batch, rows: int) -> Batch:
    """At most `rows` rows of a batch; all of it where its inputs do not share their rows."""
    return batch if _rows(batch) is None else {name: array[:rows] for name, array in batch.items()}


def write(batches: list[Batch], folder: Path) -> None:
    """A file for each batch: arrays by input name."""
    folder.mkdir()
    for k, batch in enumerate(batches):
        with zipfile.ZipFile(folder / f"{k:04}.npz", "w") as archive:
            for name, array in batch.items():  # numpy.savez takes no input called `file`
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array)


def _rows(batch: Batch) -> int | None:
    """Length of axis 0 where all inputs share it."""
    lengths = {array.shape[0] if array.ndim else None for array in batch.values()}
    return lengths.pop() if len(lengths) == 1 else None
