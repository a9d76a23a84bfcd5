import numpy as np

from onnxpress.models import fashion


def test_test_articles_come_with_labels() -> None:
    feed = fashion.labelled(samples=25, batch=10)
    assert [batch["image"].shape for batch in feed] == [(10, 3, 224, 224), (10, 3, 224, 224), (5, 3, 224, 224)]
    assert feed.labels is not None
    assert feed.labels.shape == (25,)
    assert set(feed.labels.tolist()) <= set(range(10))


def test_calibration_articles_have_no_labels_and_are_none_of_the_test() -> None:
    with np.load(fashion._HERE / "fashion.npz", allow_pickle=False) as arrays:
        train, test = ({image.tobytes() for image in arrays[f"{half}_images"]} for half in ("train", "test"))
    assert (len(train), len(test)) == (1500, 2000)
    assert not train & test
    assert fashion.calibration(samples=8).labels is None


def test_pixels_are_inverted_and_alike_in_all_channels() -> None:
    image = next(iter(fashion.calibration(samples=2)))["image"]
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, 0], image[:, 2])
    assert image.max() == 1  # the ground, 255
    assert -1 < image.min() < -0.8


def test_enlarging_is_bilinear_and_keeps_the_mean() -> None:
    image = np.array([[[0, 100], [50, 150]]], np.uint8)
    large = fashion.enlarge(image, 4)
    np.testing.assert_allclose(large[0, 0], [0, 25, 75, 100], rtol=0, atol=1e-4)
    np.testing.assert_allclose(large[0, :, 0], [0, 12.5, 37.5, 50], rtol=0, atol=1e-4)
    np.testing.assert_allclose(large.mean(), image.mean(), rtol=1e-6)


def test_the_head_tells_classes_that_differ_apart() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 10
    features = random.standard_normal((10, 1280))[labels] * 3 + random.standard_normal((200, 1280))
    weight, bias = fashion.fit_head(features, labels)
    assert weight.shape == fashion.head()[0].shape
    assert bias.shape == fashion.head()[1].shape
    assert ((features @ weight.T + bias).argmax(axis=1) == labels).all()
