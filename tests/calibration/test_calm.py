"""A timing is taken again where the reference was slower than it once was."""

import pytest

from onnxpress.calibration import calm
from onnxpress.calibration.calm import AGAIN, Calm


@pytest.fixture
def paused(monkeypatch):
    """The pauses, without waiting."""
    pauses = []
    monkeypatch.setattr(calm.time, "sleep", pauses.append)
    return pauses


def raced(watch, times, key="input"):
    """One measurement, of whose repetitions the reference takes so long."""
    return watch.race(key, iter(times).__next__, float)


def test_the_race_counts_in_which_the_reference_was_fastest(paused):
    watch = Calm(patience=60.0)
    assert raced(watch, [1.0]) == (1.0, 1.0)
    assert raced(watch, [1.3, 1.05, 0.9]) == (1.05, 1.05)
    assert len(paused) == 1


def test_gives_up_after_some_and_says_how_slow_it_was(paused):
    watch = Calm(patience=60.0)
    raced(watch, [1.0])
    assert raced(watch, [1.5, 1.3, 1.4, 1.6, 1.0]) == (1.3, 1.3)
    assert len(paused) == AGAIN


def test_takes_no_more_time_than_it_may(paused):
    watch = Calm()
    raced(watch, [1.0])
    assert raced(watch, [1.5, 1.0]) == (1.5, 1.5)
    assert not paused


def test_patience_is_spent(paused):
    watch = Calm(patience=60.0)
    raced(watch, [1.0])
    raced(watch, [1.5, 1.5, 1.0])
    assert watch.patience == pytest.approx(60.0 - 2 * sum(paused))


def test_a_faster_race_is_what_later_ones_are_held_against(paused):
    watch = Calm(patience=60.0)
    raced(watch, [1.0])
    raced(watch, [0.8])
    assert raced(watch, [1.0, 0.81]) == (0.81, pytest.approx(0.81 / 0.8))


def test_other_references_and_batches_have_their_own(paused):
    watch = Calm(patience=60.0)
    raced(watch, [1.0])
    assert raced(watch, [5.0, 1.0], key="another") == (5.0, 1.0)
