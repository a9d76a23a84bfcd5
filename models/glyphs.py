"""Characters for CharNet: digits and letters in the manner of text in photographs, committed beside this module.

The files are packed by LZMA, which `numpy.load` unpacks as it does any other archive.
"""

from __future__ import annotations

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import images, stored

_FLAT = np.float32(0.01)  # added to the standard deviation, so that an empty image is not blown up


def labelled(*, samples: int = 8000, batch: int = 200) -> Feed:
    """The 8,000 test characters: `image` float32 [batch, 1, 24, 24], labels int64 0..35 for 0 to 9 and a to z.

    Small and capital letters have the same label.
    """
    pixels, labels = stored("glyphs-test.npz", "images")[:samples], stored("glyphs-test.npz", "labels")[:samples]
    return images(pixels, labels.astype(np.int64), batch=batch, prepare=normalised)


def calibration(*, samples: int = 2000, batch: int = 50) -> Feed:
    """2,000 training characters, in other fonts, without labels; inputs as in `labelled`."""
    return images(stored("glyphs-calibration.npz", "images")[:samples], None, batch=batch, prepare=normalised)


def normalised(pixels: Array) -> Array:
    """Each image less its mean, over its standard deviation: uint8 [n, 24, 24] to float32 [n, 1, 24, 24]."""
    scaled = pixels[:, None].astype(np.float32) / np.float32(255)
    mean, spread = (f(scaled, axis=(2, 3), keepdims=True) for f in (np.mean, np.std))
    return np.asarray((scaled - mean) / (spread + _FLAT))
