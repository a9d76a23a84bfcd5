"""Samples of rows."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.calibration.observers import Observer, Rows
from onnxpress.calibration.views import Columns, LastAxis
from onnxpress.rewriter.errors import ConfigError


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 12), st.integers(0, 99))
def test_order_and_grouping_of_batches_make_no_difference(sizes, count, seed):
    draw = np.random.default_rng(seed)
    arrays = [draw.standard_normal((size, 2)).astype(np.float32) for size in sizes]
    for array in arrays:
        array[draw.random(array.shape) < 0.1] = np.nan
    whole, parts = Rows(count=count, seed=seed), [Rows(count=count, seed=seed) for _ in range(2)]
    for position, array in enumerate(arrays):
        whole.update(array)
        parts[position % 2].update(array)
    parts[1].merge(parts[0])
    every = np.concatenate(arrays)
    finite = {tuple(row) for row in every[np.isfinite(every).all(axis=1)].tolist()}
    kept = [tuple(row) for row in whole.rows[0].tolist()] if finite else []
    assert len(kept) == min(count, len(finite))
    assert set(kept) <= finite
    np.testing.assert_array_equal(parts[1].rows, whole.rows)


def test_every_row_is_as_likely_as_any_other():
    counts = np.zeros(40)
    for seed in range(300):
        observer = Rows(count=10, seed=seed)
        for start, size in ((0, 2), (2, 30), (32, 8)):
            observer.update(np.arange(start, start + size, dtype=np.float32).reshape(size, 1))
        counts[observer.rows[0, :, 0].astype(int)] += 1
    assert counts.sum() == 3000
    # 75 expected of each, standard deviation 7.5; the sum over the middle batch 2250, deviation 24
    assert abs(counts - 75).max() < 30
    assert abs(counts[2:32].sum() - 2250) < 120


def test_only_sampled_rows_are_unfolded():
    sizes = []

    class Watched(LastAxis):
        __slots__ = ()

        def rows(self, array, positions=None, /):
            sizes.append(len(positions))
            return super().rows(array, positions)

    observer = Rows(view=Watched(), count=5)
    for batch in range(20):
        observer.update(np.full((1000, 3), batch, np.float32))
    assert max(sizes) <= 5
    assert observer.rows.shape == (1, 5, 3)


def test_state_goes_through_a_file():
    observer = Rows(count=3, seed=4)
    observer.update(np.array([[1.0], [np.inf], [3.0]]))
    stored = io.BytesIO()
    np.savez(stored, **observer.state())
    stored.seek(0)
    again = Rows.from_state(np.load(stored, allow_pickle=False))
    for each in (again, observer):
        each.update(np.arange(9.0).reshape(9, 1))
    np.testing.assert_array_equal(again.rows, observer.rows)
    assert again.ignored == 1
    assert again.warnings("x") == ("'x': 1 rows hold NaN or infinities and do not count",)
    assert Rows.from_state(Rows().state()).empty
    kind: Observer = again
    assert "rows" in kind.state()


@pytest.mark.parametrize("options", [{"count": 0}, {"seed": -1}])
def test_refuses_what_means_nothing(options):
    with pytest.raises(ConfigError, match="keep 1 row or more"):
        Rows(**options)


def test_refuses_to_merge_another_setup():
    with pytest.raises(ConfigError, match="cannot take in one of"):
        Rows(view=Columns()).merge(Rows())


def test_refuses_rows_that_change():
    observer = Rows()
    observer.update(np.zeros((1, 2)))
    with pytest.raises(ConfigError, match=r"\[1, 2\] groups and entries became \[1, 3\]"):
        observer.update(np.zeros((1, 3)))
