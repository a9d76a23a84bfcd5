"""The mean of the ranges of batches."""

import numpy as np
import pytest

from onnxpress.calibration.observers import MinMax, MovingAverage, Observer, Reducible
from onnxpress.rewriter.errors import ConfigError

BATCHES = [np.array([[1.0, -4.0], [3.0, 2.0]]), np.array([[5.0, 0.0]]), np.array([[9.0, -8.0]])]


@pytest.mark.parametrize(
    ("axis", "low", "high"), [(None, -4.0, 17 / 3), (1, [5.0, -4.0], [17 / 3, -2.0]), (-1, [5.0, -4.0], [17 / 3, -2.0])]
)
def test_range_is_the_mean_of_those_of_the_batches(axis, low, high):
    observer = MovingAverage(axis=axis)
    for batch in BATCHES:
        observer.update(batch)
    # sums of three numbers in float64
    np.testing.assert_allclose(observer.low, low, rtol=1e-12, atol=0)
    np.testing.assert_allclose(observer.high, high, rtol=1e-12, atol=0)
    assert not observer.empty


def test_reductions_give_the_same_as_the_tensor():
    seen, reduced = MovingAverage(), MovingAverage()
    assert reduced.reductions(2) == MinMax().reductions(2)
    for batch in BATCHES:
        seen.update(batch)
        reduced.update_reduced([np.array(batch.min()), np.array(batch.max())])
    assert (seen.low, seen.high) == (reduced.low, reduced.high)


def test_merged_parts_are_the_whole():
    whole, first, second = MovingAverage(), MovingAverage(), MovingAverage()
    for position, batch in enumerate(BATCHES):
        whole.update(batch)
        (first if position % 2 else second).update(batch)
    first.merge(second)
    np.testing.assert_allclose([first.low, first.high], [whole.low, whole.high], rtol=1e-12, atol=0)
    assert first.batches == 3


def test_batches_without_finite_entries_do_not_count():
    observer = MovingAverage()
    observer.update(np.array([np.nan, -np.inf]))
    assert observer.empty
    assert (observer.low, observer.high) == (np.inf, -np.inf)
    observer.update(np.array([1.0, 2.0, np.inf]))
    assert (observer.low, observer.high, observer.ignored, observer.empty) == (1, 2, 3, False)


def test_goes_on_from_its_state():
    observer = MovingAverage(axis=0)
    observer.update(np.array([[1.0, np.nan], [2.0, 4.0]]))
    again = MovingAverage.from_state(observer.state())
    again.update(np.array([[3.0], [6.0]]))
    assert (again.low.tolist(), again.high.tolist(), again.ignored) == ([2, 4], [2, 5], 1)


def test_refuses_other_axes_and_channels():
    with pytest.raises(ConfigError, match="along axis 0 cannot take in one along axis None"):
        MovingAverage(axis=0).merge(MovingAverage())
    observer = MovingAverage(axis=0)
    observer.update(np.zeros(2))
    with pytest.raises(ConfigError, match="2 channels became 3"):
        observer.update(np.zeros(3))


def test_is_an_observer():
    observer: Observer = MovingAverage()
    assert isinstance(observer, Reducible)
