"""Histograms that widen in place."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.calibration.observers import Histogram, Observer, Reducible, Sample
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
AXES = st.sampled_from([None, 1, -2])


def state(observer):
    return {key: value.tolist() for key, value in observer.state().items()}


def counted(values, exponent, start, bins):
    """The counts of a channel, worked out from the definition."""
    counts = [0] * bins
    for value in values.tolist():
        counts[math.floor(math.ldexp(value, -exponent)) - start] += 1
    return counts


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ARRAYS, AXES, st.sampled_from([2, 5, 16]))
def test_counts_are_those_of_the_definition(arrays, axis, bins):
    observer = Histogram(axis=axis, bins=bins)
    for array in arrays:
        observer.update(array)
    every = np.concatenate(arrays)
    channels = [every] if axis is None else [every[:, i] for i in range(3)]
    for position, channel in enumerate(channels):
        finite = channel[np.isfinite(channel)]
        if not finite.size:
            continue
        exponent, start = int(observer.exponent[position]), int(observer.start[position])
        assert observer.counts[position].tolist() == counted(finite, exponent, start, bins)
        low, high = (np.ravel(each)[position] for each in (observer.low, observer.high))
        assert (low, high) == (finite.min(), finite.max())
    assert observer.ignored == every.size - np.isfinite(every).sum()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ARRAYS, AXES)
def test_neither_order_nor_grouping_matters(arrays, axis):
    whole, backwards, first, second = (Histogram(axis=axis, bins=8) for _ in range(4))
    for position, array in enumerate(arrays):
        whole.update(array)
        backwards.update(arrays[-1 - position])
        (first if position % 2 else second).update(array)
    first.merge(second)
    assert state(backwards) == state(whole)
    assert state(first) == state(whole)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(-100, 100, width=32))
def test_more_than_half_of_the_bins_are_in_use(one, other):
    observer = Histogram(bins=64)
    observer.update(np.array([one, other]))
    counts, edges = observer.profile()
    assert counts.sum() == 2
    assert (edges[0], edges[-1]) == (min(one, other), max(one, other))
    assert (np.diff(edges) >= 0).all()
    assert len(counts) <= 64
    # Bins are no finer than 2^-50 of the greatest magnitude.
    if abs(one - other) > 1e-10 * max(abs(one), abs(other)):
        assert len(counts) >= 32


def test_zeros_then_small_then_huge_numbers():
    observer = Histogram(bins=16)
    for value in (0.0, 1e-40, -3e38, 5.0):
        observer.update(np.array([value], np.float32))
    counts, edges = observer.profile()
    assert (counts[0], counts[-1], counts.sum()) == (1, 3, 4)
    assert edges[0] == np.float32(-3e38)


def test_large_tensors_are_sampled_and_each_entry_stands_for_the_step():
    observer = Histogram(entries=100)
    observer.update(np.arange(1000, dtype=np.float32))
    assert observer.counts.sum() == 11 * 91 + 2  # every eleventh, and both extremes
    assert (observer.low, observer.high) == (0, 999)


def test_a_sample_and_the_extremes_give_the_same_as_the_tensor():
    array = np.random.default_rng(0).standard_normal((7, 5, 30)).astype(np.float32)
    for axis, rest in ((None, None), (1, (0, 2))):
        seen, reduced = Histogram(axis=axis, entries=200), Histogram(axis=axis, entries=200)
        assert reduced.reductions(3)[-1] == Sample(200)
        seen.update(array)
        step = 7  # 1050 entries are more than 5 times 200, and 6 shares a factor with 30
        values = array.min(axis=rest), array.max(axis=rest), np.array([7, 5, 30]), np.array([step])
        reduced.update_reduced([*values, array.ravel()[::step]])
        assert state(seen) == state(reduced)


def test_asks_for_nothing_where_channels_cannot_be_reduced():
    assert Histogram(axis=1).reductions(None) == ()


def test_goes_on_from_its_state():
    whole, part = Histogram(axis=0, bins=32), Histogram(axis=0, bins=32)
    first, second = np.array([[1.0, np.nan], [2.0, 4.0]]), np.array([[-9.0, 1.5], [2.0, 100.0]])
    part.update(first)
    again = Histogram.from_state(part.state())
    whole.update(first)
    whole.update(second)
    again.update(second)
    assert state(again) == state(whole)


def test_a_file_may_hold_one_that_saw_nothing():
    again = Histogram.from_state(Histogram().state())
    assert again.empty
    again.update(np.array([1.0, 2.0]))
    assert again.profile()[0].sum() == 2


def test_is_an_observer():
    observer: Observer = Histogram()
    assert isinstance(observer, Reducible)


def test_refuses_what_makes_no_histogram():
    with pytest.raises(ConfigError, match="1 bins show no distribution"):
        Histogram(bins=1)
    with pytest.raises(ConfigError, match="0 entries of a tensor are too few"):
        Histogram(entries=0)
    with pytest.raises(ConfigError, match="nothing finite was seen"):
        Histogram().profile()


def test_refuses_to_merge_what_was_set_up_otherwise():
    with pytest.raises(ConfigError, match="2048 bins cannot take in one of 16"):
        Histogram().merge(Histogram(bins=16))
    with pytest.raises(ConfigError, match="along axis 0 cannot take in one along axis None"):
        Histogram(axis=0).merge(Histogram())
    one, other = Histogram(axis=0), Histogram(axis=0)
    one.update(np.zeros(2))
    other.update(np.zeros(3))
    with pytest.raises(ConfigError, match="2 channels became 3"):
        one.merge(other)


def test_refuses_a_state_whose_parts_do_not_fit():
    broken = {**Histogram(bins=8).state(), "start": np.zeros(3, np.int64)}
    with pytest.raises(ValueError, match="do not fit"):
        Histogram.from_state(broken)


@pytest.mark.parametrize("axis", [None, 1])
def test_a_lone_extreme_of_a_large_tensor_is_counted(axis):
    array = np.zeros((1000, 3), np.float32)
    array[500, 1] = 7  # between the entries that are looked at
    observer = Histogram(axis=axis, entries=100)
    observer.update(array)
    counts, edges = observer.profile(0 if axis is None else 1)
    assert (edges[-1], counts[-1]) == (7, 1)
