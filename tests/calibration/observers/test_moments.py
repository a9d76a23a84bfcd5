"""Second moments of rows."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.calibration.observers import Observer, Reducible, SecondMoment
from onnxpress.calibration.views import Columns, LastAxis, Patches
from onnxpress.rewriter.errors import ConfigError


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_is_the_moment_of_all_finite_rows(sizes, seed):
    draw = np.random.default_rng(seed)
    arrays = [draw.standard_normal((2, size, 3)).astype(np.float32) for size in sizes]
    for array in arrays:
        array[draw.random(array.shape) < 0.1] = draw.choice([np.nan, np.inf])
    whole, parts = SecondMoment(), [SecondMoment(), SecondMoment()]
    for position, array in enumerate(arrays):
        whole.update(array)
        parts[position % 2].update(array)
    parts[0].merge(parts[1])
    every = np.concatenate([array.reshape(-1, 3) for array in arrays])
    finite = every[np.isfinite(every).all(axis=1)].astype(np.float64)
    for observer in (whole, parts[0]):
        assert (observer.count, observer.ignored) == (len(finite), len(every) - len(finite))
        assert observer.empty == (not len(finite))
        if len(finite):
            # float32 sums of at most 40 products
            np.testing.assert_allclose(observer.total[0], finite.T @ finite, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(observer.mean[0], finite.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_groups_have_moments_of_their_own():
    array = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    observer = SecondMoment(view=Patches(kernel=(1,), strides=(1,), pads=(0, 0), dilations=(1,), groups=2))
    observer.update(array)
    rows = array.transpose(0, 2, 1).reshape(-1, 2, 2)
    for group in range(2):
        wanted = rows[:, group].T @ rows[:, group]
        np.testing.assert_allclose(observer.total[group], wanted, rtol=1e-5, atol=1e-5)  # float32 sums


def test_takes_rows_from_all_over_a_batch():
    observer = SecondMoment(per_batch=10)
    observer.update(np.repeat(np.eye(10, dtype=np.float32), 100, axis=0))
    np.testing.assert_array_equal(observer.total[0], np.eye(10))
    assert observer.count == 10


def test_unfolds_a_large_batch_in_pieces():
    array = np.ones((5000, 1, 1024), np.float32)
    observer = SecondMoment(per_batch=5000)
    observer.update(array)
    assert observer.count == 5000
    assert (observer.total == 5000).all()


def test_state_goes_through_a_file():
    observer = SecondMoment(view=Columns(), per_batch=7)
    observer.update(np.array([[1.0, np.nan], [2.0, 5.0]]))
    stored = io.BytesIO()
    np.savez(stored, **observer.state())
    stored.seek(0)
    again = SecondMoment.from_state(np.load(stored, allow_pickle=False), view=Columns())
    again.merge(observer)
    assert (again.count, again.ignored, again.per_batch) == (2, 2, 7)
    np.testing.assert_array_equal(again.total, [[[2, 4], [4, 8]]])
    np.testing.assert_array_equal(again.sum, [[2, 4]])
    assert again.warnings("x") == ("'x': 2 rows hold NaN or infinities and do not count",)
    empty = SecondMoment.from_state(SecondMoment().state())
    assert empty.empty
    assert empty.warnings("x") == ()


def test_must_see_the_tensor_itself():
    observer: Observer = SecondMoment()
    assert not isinstance(observer, Reducible)


def test_refuses_rows_that_change():
    observer = SecondMoment()
    observer.update(np.zeros((1, 2)))
    with pytest.raises(ConfigError, match=r"\[1, 2\] groups and entries became \[1, 3\]"):
        observer.update(np.zeros((1, 3)))


def test_refuses_to_merge_another_view():
    with pytest.raises(ConfigError, match="cannot take in those of LastAxis"):
        SecondMoment(view=Columns()).merge(SecondMoment(view=LastAxis()))


def test_refuses_no_rows():
    with pytest.raises(ConfigError, match="per_batch 0"):
        SecondMoment(per_batch=0)
