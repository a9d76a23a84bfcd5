import sys

import numpy as np
import pytest

from onnxpress.models import photos
from onnxpress.rewriter.errors import FeedError


def test_crops_are_what_the_model_takes() -> None:
    feed = photos.unseen(samples=6, batch=4)
    batches = [batch["input_0"] for batch in feed]
    assert [batch.shape for batch in batches] == [(4, 224, 224, 3), (2, 224, 224, 3)]
    assert feed.count == 2
    assert all(batch.dtype == np.float32 for batch in batches)
    assert all(-123 <= batch.min() < 0 < batch.max() <= 151 for batch in batches)


def test_colours_are_blue_green_red() -> None:
    # the flower is red and yellow: much red, little blue
    means = np.mean([batch["input_0"].mean(axis=(0, 1, 2)) for batch in photos.unseen(samples=8)], axis=0)
    blue, _, red = means + np.array([104, 117, 123])
    assert red > blue


def test_the_same_call_gives_the_same_crops() -> None:
    first, second = (next(iter(photos.calibration(batch=2)))["input_0"] for _ in range(2))
    np.testing.assert_array_equal(first, second, strict=True)
    assert not np.array_equal(first[0], first[1])


def test_without_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(FeedError, match=r"pip install 'onnxpress\[report\]'"):
        photos.unseen(samples=1)
