"""MNIST digits for the two LeNets, committed beside this module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import feed

_HERE = Path(__file__).parent


def labelled(*, batch: int = 250) -> Feed:
    """The 10,000 test digits: `image` float32 [batch, 1, 28, 28] in 0..1, labels int64 0..9."""
    images, labels = _read("digits-test.npz", "images"), _read("digits-test.npz", "labels")
    return _digits(images, labels.astype(np.int64), batch)


def calibration(*, batch: int = 50) -> Feed:
    """2,000 training digits without labels: `image` float32 [batch, 1, 28, 28] in 0..1."""
    return _digits(_read("digits-calibration.npz", "images"), None, batch)


def _read(file: str, name: str) -> Array:
    with np.load(_HERE / file, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _digits(images: Array, labels: Array | None, batch: int) -> Feed:
    starts = range(0, len(images), batch)

    def make() -> Iterator[Sample]:
        for i in starts:
            pixels = images[i : i + batch, None].astype(np.float32) / np.float32(255)
            yield Sample({"image": pixels}, None if labels is None else labels[i : i + batch])

    return feed(make, count=len(starts))
