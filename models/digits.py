"""MNIST digits for the two LeNets, committed beside this module."""

from __future__ import annotations

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import images, stored


def labelled(*, batch: int = 250) -> Feed:
    """The 10,000 test digits: `image` float32 [batch, 1, 28, 28] in 0..1, labels int64 0..9."""
    pixels, labels = stored("digits-test.npz", "images"), stored("digits-test.npz", "labels")
    return images(pixels, labels.astype(np.int64), batch=batch, prepare=_scaled)


def calibration(*, batch: int = 50) -> Feed:
    """2,000 training digits without labels: `image` float32 [batch, 1, 28, 28] in 0..1."""
    return images(stored("digits-calibration.npz", "images"), None, batch=batch, prepare=_scaled)


def _scaled(pixels: Array) -> Array:
    """uint8 [n, 28, 28] to float32 [n, 1, 28, 28] in 0..1."""
    return pixels[:, None].astype(np.float32) / np.float32(255)
