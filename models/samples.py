"""How the modules here make their feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed


@dataclass(frozen=True, slots=True)
class Replay:
    """Samples made anew on every walk, so that a feed holds compact bytes and not float images."""

    make: Callable[[], Iterator[Sample]]

    def __iter__(self) -> Iterator[Sample]:
        """The samples, from the first."""
        return self.make()


def feed(make: Callable[[], Iterator[Sample]], *, count: int) -> Feed:
    """A feed of the `count` batches that each call of `make` yields."""
    return Feed(Replay(make), count=count)


def stored(file: str, name: str) -> Array:
    """An array of an archive that is committed beside this module."""
    with np.load(Path(__file__).with_name(file), allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def images(pixels: Array, labels: Array | None, *, batch: int, prepare: Callable[[Array], Array]) -> Feed:
    """A feed of `image`, prepared batch by batch, with the labels where there are some."""
    starts = range(0, len(pixels), batch)

    def make() -> Iterator[Sample]:
        for i in starts:
            chosen = slice(i, i + batch)
            yield Sample({"image": prepare(pixels[chosen])}, None if labels is None else labels[chosen])

    return feed(make, count=len(starts))


def by_length(lengths: Sequence[int], *, batch: int, seed: int) -> list[list[int]]:
    """Indices in batches of nearly equal lengths, which waste little padding; the batches in seeded random order.

    Random, so that the first few batches are no shorter than the rest.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    return [batches[i] for i in np.random.default_rng(seed).permutation(len(batches))]


def rows(array: Array, *, batch: int) -> Iterator[Array]:
    """Slices of `array` [n, …] with at most `batch` rows each."""
    return (array[i : i + batch] for i in range(0, len(array), batch))
