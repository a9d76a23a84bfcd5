import numpy as np
import pytest

from onnxpress.models import speech


def test_streams_hold_speech_and_pause() -> None:
    sound, labels = speech.streams(range(24), seed=5)
    assert sound.shape == (160, 24, 512)
    assert sound.dtype == np.float32
    assert labels.shape == (160, 24)
    for stream in labels.T:
        assert (stream == 1).sum() >= 40
        assert (stream == 0).sum() >= 40
        assert (stream == -1).sum() <= 2


def test_speech_is_louder_than_pause_where_nothing_hums() -> None:
    sound, labels = speech.streams(range(3), seed=5)
    for row in (1, 2):
        power = (sound[:, row] ** 2).mean(axis=1)
        assert power[labels[:, row] == 1].mean() > 4 * power[labels[:, row] == 0].mean()


def test_the_same_call_makes_the_same_sound() -> None:
    np.testing.assert_array_equal(speech.streams(range(2), seed=1)[0], speech.streams(range(2), seed=1)[0])


@pytest.mark.network
def test_batches_carry_the_state_of_the_float_model() -> None:
    batches = list(speech.calibration())
    assert not batches[0]["state"].any()
    assert batches[1]["state"].any()
    np.testing.assert_array_equal(batches[1]["input"][:, :64], batches[0]["input"][:, -64:])
    assert speech.calibration().labels is None
