"""Unlabelled photographs for open_nsfw: crops of the two sample images inside scikit-learn; needs Pillow.

They say how faithful a compressed model is to the float one (SQNR, agreement), not how right either is. Calibration
and test crops come from different photographs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import feed
from onnxpress.rewriter.errors import FeedError

_SIDE = 224  # pixels
_MEAN = np.array([104, 117, 123], np.float32)  # of the training images: blue, green, red


def unseen(*, samples: int = 64, batch: int = 4) -> Feed:
    """Crops of `flower.jpg`: `input_0` float32 [batch, 224, 224, 3], blue-green-red, minus the mean."""
    return _crops("flower.jpg", samples=samples, batch=batch, seed=21)


def calibration(*, samples: int = 64, batch: int = 4) -> Feed:
    """Crops of `china.jpg`, prepared as in `unseen`."""
    return _crops("china.jpg", samples=samples, batch=batch, seed=22)


def _crops(photo: str, *, samples: int, batch: int, seed: int) -> Feed:
    from sklearn.datasets import load_sample_image  # here, because importing it takes a second

    try:
        image = np.asarray(load_sample_image(photo))
    except ImportError as error:
        raise FeedError("photographs need Pillow; run: pip install 'onnxpress[report]'") from error
    starts = range(0, samples, batch)

    def make() -> Iterator[Sample]:
        for start in starts:
            chosen = range(start, min(start + batch, samples))
            pixels = np.stack([_crop(image, np.random.default_rng((seed, i))) for i in chosen])
            yield Sample({"input_0": pixels[..., ::-1].astype(np.float32) - _MEAN})

    return feed(make, count=len(starts))


def _crop(image: Array, generator: np.random.Generator) -> Array:
    """A square of random place, size, mirroring and brightness: uint8 [224, 224, 3]."""
    from PIL import Image

    height, width, _ = image.shape
    side = int(generator.integers(160, min(height, width)))
    top, left = (int(generator.integers(0, room)) for room in (height - side, width - side))
    square = image[top : top + side, left : left + side]
    mirrored = square[:, ::-1] if generator.random() < 0.5 else square
    scaled = Image.fromarray(np.ascontiguousarray(mirrored)).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(np.clip(np.asarray(scaled, np.float32) * generator.uniform(0.6, 1.3), 0, 255), np.uint8)
