import numpy as np
import pytest

from onnxpress.models import sections


def test_the_halves_are_apart_and_have_every_section() -> None:
    train, train_labels = sections.texts_of("train")
    test, test_labels = sections.texts_of("test")
    assert (len(train), len(test)) == (2000, 984)
    # two texts stand in two sections each, and so in both halves
    assert len(set(train) & set(test)) == 2
    assert np.bincount(train_labels).tolist() == [100] * 20
    assert np.bincount(test_labels).min() >= 30


def test_the_frozen_head_fits_the_embedding() -> None:
    weight, bias = sections.head()
    assert (weight.shape, bias.shape) == ((20, 384), (20,))
    assert weight.dtype == bias.dtype == np.float32


def test_a_head_learns_what_can_be_learnt() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    embeddings = np.eye(3)[labels] + generator.standard_normal((60, 3)) * 0.05
    weight, bias = sections.fit_head(embeddings, labels)
    np.testing.assert_array_equal((embeddings @ weight.T + bias).argmax(axis=1), labels)


@pytest.mark.network
def test_feeds_hold_tokens() -> None:
    feed = sections.labelled()
    labels = feed.labels
    assert labels is not None
    np.testing.assert_array_equal(np.sort(labels), np.sort(sections.texts_of("test")[1]))
    for batch in sections.calibration(samples=32):
        assert set(batch) == {"input_ids", "attention_mask"}
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert (batch["input_ids"][:, 0] == 101).all()
