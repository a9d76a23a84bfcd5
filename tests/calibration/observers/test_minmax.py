"""Statistics of tensors."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.calibration.observers import MinMax, Observer, Reducible, Reduction
from onnxpress.rewriter.errors import ConfigError

ARRAYS = st.lists(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 3), st.just(3), st.just(2)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ARRAYS, st.sampled_from([None, 1, -2]))
def test_range_is_that_of_all_finite_entries(arrays, axis):
    observer = MinMax(axis=axis)
    for array in arrays:
        observer.update(array)
    every = np.concatenate(arrays)
    channels = [every] if axis is None else [every[:, i] for i in range(3)]
    for position, channel in enumerate(channels):
        finite = channel[np.isfinite(channel)]
        low, high = np.ravel(observer.low)[position], np.ravel(observer.high)[position]
        assert (low, high) == ((finite.min(), finite.max()) if finite.size else (np.inf, -np.inf))
    assert observer.ignored == every.size - np.isfinite(every).sum()
    assert observer.empty == any(not np.isfinite(channel).any() for channel in channels)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(ARRAYS, st.sampled_from([None, 1]))
def test_merged_parts_are_the_whole(arrays, axis):
    whole, first, second = MinMax(axis=axis), MinMax(axis=axis), MinMax(axis=axis)
    for position, array in enumerate(arrays):
        whole.update(array)
        (first if position % 2 else second).update(array)
    first.merge(second)
    assert {k: v.tolist() for k, v in first.state().items()} == {k: v.tolist() for k, v in whole.state().items()}


def test_state_goes_through_a_file():
    observer = MinMax(axis=-1)
    observer.update(np.array([[1.0, -2.0], [np.nan, 5.0]]))
    stored = io.BytesIO()
    np.savez(stored, **observer.state())
    stored.seek(0)
    again = MinMax.from_state(np.load(stored, allow_pickle=False))
    assert again.axis == -1
    assert again.ignored == 1
    np.testing.assert_array_equal(again.low, [1, -2])
    np.testing.assert_array_equal(again.high, [1, 5])
    assert MinMax.from_state(MinMax().state()).axis is None


def test_warns_of_entries_left_out_and_of_an_empty_range():
    observer = MinMax()
    assert observer.warnings("mask") == ("'mask': no finite entry was seen, it has no range",)
    observer.update(np.array([0.0, -np.inf]))
    assert observer.warnings("mask") == ("'mask': 1 entries are NaN or infinite and do not count for its range",)
    observer = MinMax()
    observer.update(np.array([2, 3], np.uint8))
    assert observer.warnings("ids") == ()


def test_float16_bounds_are_exact():
    observer = MinMax()
    observer.update(np.array([np.inf, 65504.0, 0.1], np.float16))
    assert observer.high == 65504
    assert observer.low == np.float64(np.float16(0.1))


def test_asks_for_reductions_it_can_use():
    assert MinMax().reductions(None) == (Reduction("ReduceMin"), Reduction("ReduceMax"))
    assert MinMax(axis=1).reductions(4) == (Reduction("ReduceMin", (0, 2, 3)), Reduction("ReduceMax", (0, 2, 3)))
    assert MinMax(axis=-1).reductions(2)[0].axes == (0,)
    assert MinMax(axis=1).reductions(None) == ()
    assert MinMax(axis=0).reductions(1) == ()


def test_is_an_observer():
    observer: Observer = MinMax()
    assert isinstance(observer, Reducible)


def test_refuses_an_axis_the_tensor_lacks():
    with pytest.raises(ConfigError, match="axis 2 of a tensor with 2 axes does not exist"):
        MinMax(axis=2).update(np.zeros((1, 2)))


def test_refuses_channels_that_change():
    observer = MinMax(axis=0)
    observer.update(np.zeros(2))
    with pytest.raises(ConfigError, match="2 channels became 3"):
        observer.update(np.zeros(3))


def test_refuses_to_merge_another_axis():
    with pytest.raises(ConfigError, match="along axis 0 cannot take in one along axis None"):
        MinMax(axis=0).merge(MinMax())
