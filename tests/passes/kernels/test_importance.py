"""How much single units of a layer matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.importance import energies, joint, median_distances, norms, presences


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_norms_are_those_of_numpy(units, width, seed):
    rows = np.random.default_rng(seed).standard_normal((units, width)).astype(np.float32)
    for norm, order in (("l1", 1), ("l2", 2)):
        np.testing.assert_allclose(norms(rows, norm=norm), np.linalg.norm(rows, order, axis=1), rtol=1e-6, atol=0)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_distances_are_summed_over_all_others(units, width, seed):
    rows = np.random.default_rng(seed).standard_normal((units, width)) + 100
    wanted = np.linalg.norm(rows[:, np.newaxis] - rows, axis=2).sum(axis=1)
    # squares of numbers near 1 are subtracted from one another, so distances near 0 lose half of their digits
    np.testing.assert_allclose(median_distances(rows), wanted, rtol=1e-6, atol=1e-6)


def test_the_unit_in_the_middle_is_nearest_to_the_geometric_median(monkeypatch):
    monkeypatch.setattr("onnxpress.passes.kernels.importance._PIECE", 8)  # several pieces
    rows = np.array([[-3.0, 0], [-1, 0], [0, 0], [1, 0], [3, 0]])
    distances = median_distances(rows)
    assert distances.argmin() == 2
    np.testing.assert_allclose(distances[2], 8, rtol=1e-12, atol=0)


def test_activity_is_that_of_the_columns_of_each_unit():
    rows = np.array([[3.0, 4, 0, 1], [-3, -4, 0, 0]])
    columns = np.array([[0, 1], [2, 3]])
    np.testing.assert_allclose(energies(rows, columns), [np.sqrt(12.5), 0.5], rtol=1e-12, atol=0)
    np.testing.assert_allclose(presences(rows, columns), [1.0, 0.25], rtol=1e-12, atol=0)


def test_no_rows_are_no_activity():
    columns = np.array([[0], [1]])
    assert not energies(np.zeros((0, 2)), columns).any()
    assert not presences(np.zeros((0, 2)), columns).any()


def test_scale_of_a_layer_makes_no_difference():
    first, second = np.array([1.0, 2, 3]), np.array([3.0, 1, 2])
    together = joint([first, second])
    np.testing.assert_allclose(joint([first * 1000, second]), together, rtol=1e-12, atol=0)
    np.testing.assert_allclose(together.mean(), 1, rtol=1e-12, atol=0)


def test_a_layer_that_sees_nothing_of_all_units_does_not_decide():
    np.testing.assert_allclose(joint([np.zeros(2), np.array([1.0, 3])]), [0.75, 1.25], rtol=1e-12, atol=0)


@pytest.mark.parametrize("scores", [[], [np.array([np.nan, 1])], [np.array([-1.0, 1])]])
def test_refuses_scores_that_mean_nothing(scores):
    with pytest.raises(ValueError, match="scores"):
        joint(scores)
