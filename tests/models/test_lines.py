import sys

import numpy as np
import pytest

from onnxpress.models import lines
from onnxpress.rewriter.errors import FeedError


def test_sentences_are_distinct_readable_and_in_a_fixed_order() -> None:
    found = lines.sentences()
    assert len(found) == len(set(found)) > 2000
    assert all(8 <= len(line) <= 32 and line == line.strip() and "  " not in line for line in found)
    assert found == lines.sentences()


def test_recognition_lines_carry_their_text() -> None:
    feed = lines.recognition(samples=10, batch=4)
    labels = feed.labels
    assert labels is not None
    assert feed.count == 3
    assert sorted(labels.tolist()) == sorted(lines.sentences()[:10])


def test_recognition_pixels_are_what_the_model_takes() -> None:
    for batch in lines.recognition(samples=8, batch=4):
        pixels = batch["x"]
        assert pixels.dtype == np.float32
        assert pixels.shape[:3] == (4, 3, 48)
        assert pixels.shape[3] >= 320
        assert -1 <= pixels.min() < -0.2 < 0.2 < pixels.max() <= 1


def test_every_other_line_of_direction_is_turned() -> None:
    labels = lines.direction(samples=20, batch=5).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [10, 10]
    assert all(batch["x"].shape == (5, 3, 48, 192) for batch in lines.direction(samples=20, batch=5))


def test_calibration_never_shows_a_test_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(lines, "_recognition", lambda texts, **_: shown.append(list(texts)))
    lines.recognition(samples=10_000)
    lines.recognition_calibration(samples=500)
    assert [len(texts) for texts in shown] == [1000, 500]
    assert not set(shown[0]) & set(shown[1])


def test_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FeedError, match=r"pip install 'onnxpress\[report\]'"):
        lines.recognition(samples=1)


def test_the_same_call_renders_the_same_pixels() -> None:
    first, second = (list(lines.recognition_calibration(samples=6, batch=3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"], strict=True)
    assert lines.recognition_calibration(samples=6).labels is None


def test_a_line_is_dark_on_light() -> None:
    image = lines.render("Some text", lines.fonts()[0], np.random.default_rng(3))
    assert image.dtype == np.uint8
    assert image.ndim == 2
    assert np.median(image) > 150 > 120 > image.min()
