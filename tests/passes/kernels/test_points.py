import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import points
from onnxpress.passes.kernels.points import Sums, distinct_points, ordered_points, points_of

modest = settings(deadline=None, derandomize=True, max_examples=40)


@pytest.mark.parametrize("size", [1, 127, 128, 100_000, (1 << 17)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_those_of_the_first_terms(size, dtype):
    terms = np.random.default_rng(0).standard_normal(size).astype(dtype)
    places = np.unique(np.random.default_rng(1).integers(0, size + 1, 50))
    places = np.concatenate([places, [0, size]]).reshape(-1, 1)
    expected = np.concatenate([[0], np.cumsum(terms, dtype=np.float64)])[places]
    np.testing.assert_allclose(Sums.of(terms).at(places), expected, rtol=1e-12, atol=1e-12 * size)


@modest
@given(seed=st.integers(0, 10_000), weighted=st.booleans(), dtype=st.sampled_from([np.float16, np.float32, np.float64]))
def test_distinct_points_hold_every_value_once_with_all_its_mass(seed, weighted, dtype):
    rng = np.random.default_rng(seed)
    values = rng.integers(-9, 9, (7, 11)).astype(dtype) / 4
    values[0] = -0.0
    weights = rng.random(values.shape) if weighted else None
    found = distinct_points(values, weights=weights)
    expected = np.unique(values.astype(np.float64) + 0.0)
    np.testing.assert_array_equal(found.value, expected)
    mass = [np.sum((values == each) if weights is None else weights[values == each]) for each in expected]
    np.testing.assert_allclose(found.mass, mass, rtol=1e-6, atol=0)  # of a trace of mass


def test_values_that_hardly_repeat_are_only_sorted():
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    found = ordered_points(values)
    assert found.mass is None
    np.testing.assert_array_equal(found.value, np.sort(values))
    edges = np.array([0, 17, 10_000])
    same = points_of(values)
    np.testing.assert_allclose(found.moved(edges), same.moved(edges), rtol=1e-12, atol=0)
    np.testing.assert_array_equal(found.held(edges), same.held(edges))


@pytest.mark.parametrize("values", [np.zeros(10_000), np.arange(10_000) % 5000, np.arange(100.0)])
def test_values_that_repeat_or_are_few_are_taken_together(values):
    found, expected = ordered_points(values.astype(np.float32)), np.unique(values)
    np.testing.assert_array_equal(found.value, expected)
    assert found.mass.sum() == values.size


def test_many_values_are_gathered_into_bins_with_their_mass_and_mean(monkeypatch):
    monkeypatch.setattr(points, "SORTED", 1000)
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    values[:9] = 0
    found = points_of(values, keep_zero=True)
    assert (np.diff(found.value) > 0).all()
    assert found.mass.sum() == values.size
    np.testing.assert_allclose((found.mass * found.value).sum(), values.astype(float).sum(), rtol=1e-9, atol=1e-9)
    assert found.mass[found.value == 0] == 9
