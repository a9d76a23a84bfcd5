"""Characters for CharNet: digits and letters in the manner of text in photographs, committed beside this module.

The files are packed by LZMA, which `numpy.load` unpacks as it does any other archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import feed

_HERE = Path(__file__).parent
_FLAT = np.float32(0.01)  # added to the standard deviation, so that an empty image is not blown up


def labelled(*, samples: int = 8000, batch: int = 200) -> Feed:
    """The 8,000 test characters: `image` float32 [batch, 1, 24, 24], labels int64 0..35 for 0 to 9 and a to z.

    Small and capital letters have the same label.
    """
    images, labels = _read("glyphs-test.npz", "images"), _read("glyphs-test.npz", "labels")
    return _glyphs(images[:samples], labels[:samples].astype(np.int64), batch)


def calibration(*, samples: int = 2000, batch: int = 50) -> Feed:
    """2,000 training characters, in other fonts, without labels; inputs as in `labelled`."""
    return _glyphs(_read("glyphs-calibration.npz", "images")[:samples], None, batch)


def normalised(images: Array) -> Array:
    """Each image less its mean, over its standard deviation: uint8 [n, 24, 24] to float32 [n, 1, 24, 24]."""
    pixels = images[:, None].astype(np.float32) / np.float32(255)
    mean, spread = (f(pixels, axis=(2, 3), keepdims=True) for f in (np.mean, np.std))
    return np.asarray((pixels - mean) / (spread + _FLAT))


def _read(file: str, name: str) -> Array:
    with np.load(_HERE / file, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _glyphs(images: Array, labels: Array | None, batch: int) -> Feed:
    starts = range(0, len(images), batch)

    def make() -> Iterator[Sample]:
        for i in starts:
            chosen = slice(i, i + batch)
            yield Sample({"image": normalised(images[chosen])}, None if labels is None else labels[chosen])

    return feed(make, count=len(starts))
