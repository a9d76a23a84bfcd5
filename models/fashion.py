"""Labelled photographs for EfficientNet-Lite0: articles of clothing of Fashion-MNIST, committed beside this module.

Fashion-MNIST (Xiao et al., 2017, https://arxiv.org/abs/1708.07747) tells ten kinds of clothing apart. The network was
trained on ImageNet; here its features feed a linear head that was fitted once, by `fit_head` on the float network, and
is committed: a compressed model is measured with the head of the float one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.efficientnet import SIDE
from onnxpress.models.samples import feed

_HERE = Path(__file__).parent


def labelled(*, samples: int = 1000, batch: int = 10) -> Feed:
    """The first of 2,000 test articles: `image` float32 [batch, 3, 224, 224], labels int64 0..9."""
    return _articles("test", slice(0, samples), batch, told=True)


def calibration(*, samples: int = 128, batch: int = 8) -> Feed:
    """The first of 1,500 training articles without labels; inputs as in `labelled`."""
    return _articles("train", slice(0, samples), batch, told=False)


def training(*, batch: int = 10) -> Feed:
    """The 1,500 training articles with their labels, on which the head was fitted; inputs as in `labelled`."""
    return _articles("train", slice(None), batch, told=True)


def head() -> tuple[Array, Array]:
    """The frozen head: weight float32 [10, 1280], bias float32 [10]."""
    with np.load(_HERE / "fashion-head.npz", allow_pickle=False) as arrays:
        return np.asarray(arrays["weight"]), np.asarray(arrays["bias"])


def fit_head(features: Array, labels: Array) -> tuple[Array, Array]:
    """Fit the head as the committed one was: logistic regression, C = 0.02, on features of about unit variance.

    Args:
        features: float [n, 1280], of the float network on `training`.
        labels: int64 [n].
    """
    from sklearn.linear_model import LogisticRegression  # here, because importing it takes a second

    spread = features.std(axis=0) + 1e-3  # so that a feature that hardly varies is not blown up
    fitted = LogisticRegression(C=0.02, max_iter=500).fit(features / spread, labels)
    return (fitted.coef_ / spread).astype(np.float32), fitted.intercept_.astype(np.float32)


def enlarge(images: Array, side: int) -> Array:
    """Images [n, rows, columns] at `side` pixels each way, bilinearly, as float32; edges repeat."""
    rows, columns = (_weights(size, side) for size in images.shape[1:])
    return np.asarray(np.einsum("ar,nrc,bc->nab", rows, images.astype(np.float32), columns, optimize=True))


def _articles(half: str, chosen: slice, batch: int, *, told: bool) -> Feed:
    with np.load(_HERE / "fashion.npz", allow_pickle=False) as arrays:
        images, labels = arrays[f"{half}_images"][chosen], arrays[f"{half}_labels"][chosen].astype(np.int64)
    starts = range(0, len(images), batch)

    def make() -> Iterator[Sample]:
        for i in starts:
            dark = 255 - enlarge(images[i : i + batch], SIDE)  # a light ground, as on most of ImageNet's photographs
            grey = (dark - 127) / np.float32(128)
            pixels = np.repeat(grey[:, None], 3, axis=1)
            yield Sample({"image": pixels}, labels[i : i + batch] if told else None)

    return feed(make, count=len(starts))


def _weights(size: int, wanted: int) -> Array:
    """How much of each of `size` pixels is in each of `wanted`: float32 [wanted, size], each row sums to one."""
    centres = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size))), np.float32)
