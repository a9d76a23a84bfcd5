import numpy as np
import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.models import digits, zoo


@pytest.mark.parametrize(("name", "accuracy"), [("lenet300", 0.9903), ("lenet5", 0.9931)])
def test_the_lenets_read_the_test_digits(name: str, accuracy: float) -> None:
    entry = zoo.recipe(name)
    assert entry.metric is not None
    with Runner(zoo.path(name)) as runner:
        feed = open_feed(entry.feed, inputs=runner.input_specs)
        # two digits in 10,000 at most may tip over between processors
        assert load_metric(entry.metric)(runner, feed) == pytest.approx(accuracy, rel=0, abs=2.5e-4)


def test_labelled_digits_are_all_there() -> None:
    feed = digits.labelled(batch=300)
    sizes = [len(batch["image"]) for batch in feed]
    assert sizes == [300] * 33 + [100]
    assert feed.count == 34
    labels = feed.labels
    assert labels is not None
    np.testing.assert_array_equal(np.unique(labels), np.arange(10))
    assert labels.shape == (10_000,)


def test_calibration_digits_have_no_labels_and_are_none_of_the_test() -> None:
    feed = digits.calibration()
    calibration = {image.tobytes() for batch in feed for image in batch["image"]}
    test = {image.tobytes() for batch in digits.labelled() for image in batch["image"]}
    assert feed.labels is None
    assert len(calibration) == 2000
    assert not calibration & test


def test_pixels_are_float32_in_the_unit_range() -> None:
    pixels = next(iter(digits.calibration(batch=7)))["image"]
    assert pixels.shape == (7, 1, 28, 28)
    assert pixels.dtype == np.float32
    assert pixels.min() == 0
    assert 0.9 < pixels.max() <= 1
