from pathlib import Path

import numpy as np
import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.models import glyphs, zoo


@pytest.mark.parametrize(("samples", "accuracy"), [(1000, 0.871), pytest.param(8000, 0.8730, marks=pytest.mark.slow)])
def test_charnet_reads_the_test_characters(samples: int, accuracy: float, tmp_path: Path) -> None:
    entry = zoo.recipe("charnet")
    assert entry.metric is not None
    with Runner(zoo.path("charnet", cache=tmp_path)) as runner:
        feed = open_feed(glyphs.labelled(samples=samples), inputs=runner.input_specs)
        # two characters in 8,000, or one in 1,000, may tip over between processors
        assert load_metric(entry.metric)(runner, feed) == pytest.approx(accuracy, rel=0, abs=max(2.5e-4, 1 / samples))


def test_labelled_characters_are_all_there() -> None:
    feed = glyphs.labelled(batch=300)
    assert [len(batch["image"]) for batch in feed] == [300] * 26 + [200]
    assert feed.count == 27
    labels = feed.labels
    assert labels is not None
    assert labels.shape == (8000,)
    np.testing.assert_array_equal(np.unique(labels), np.arange(36))


def test_calibration_characters_have_no_labels_and_are_none_of_the_test() -> None:
    feed = glyphs.calibration()
    calibration = {image.tobytes() for batch in feed for image in batch["image"]}
    test = {image.tobytes() for batch in glyphs.labelled() for image in batch["image"]}
    assert feed.labels is None
    assert len(calibration) == 2000
    assert not calibration & test


def test_images_have_no_mean_and_about_unit_spread() -> None:
    images = next(iter(glyphs.calibration(samples=7)))["image"]
    assert images.shape == (7, 1, 24, 24)
    assert images.dtype == np.float32
    # sums of 576 values of about 1 in float32
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 0, rtol=0, atol=1e-5)
    assert ((images.std(axis=(1, 2, 3)) > 0.8) & (images.std(axis=(1, 2, 3)) < 1)).all()


def test_an_even_image_stays_finite() -> None:
    np.testing.assert_array_equal(glyphs.normalised(np.full((1, 24, 24), 9, np.uint8)), 0)
