"""Scales of least squared error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.affine import INT8, INT8_SYMMETRIC, Grid, dequantize, quantize, symmetric_scale
from onnxpress.passes.kernels.scales import mse_scale

INT4 = Grid(-8, 7, np.dtype(np.int8))
INT2 = Grid(-2, 1, np.dtype(np.int8))


def weighted_error(rows, scale, grid, importance):
    """Of each row, in float64."""
    back = dequantize(quantize(rows, scale, grid=grid, axis=0), scale, axis=0)
    return ((rows.astype(np.float64) - back) ** 2 * importance).sum(axis=1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.sampled_from([INT8, INT8_SYMMETRIC, INT4, INT2]),
    st.integers(0, 6),
    st.integers(0, 40),
    st.integers(-30, 30),
    st.integers(0, 999),
)
def test_is_never_worse_than_the_largest_magnitude(grid, out, width, exponent, seed):
    draw = np.random.default_rng(seed)
    rows = (draw.standard_t(2, (out, width)) * 10.0**exponent).astype(np.float32)
    rows[draw.random(rows.shape) < 0.2] = 0
    importance = draw.exponential(size=width) * draw.integers(0, 2, width)
    scale = mse_scale(rows, grid, importance=importance)
    assert scale.shape == (out,)
    assert (scale > 0).all()
    plain = symmetric_scale(np.abs(rows).max(axis=1, initial=0), grid)
    # in float32, both errors are known to a few roundings
    limit = weighted_error(rows, plain, grid, importance) * (1 + 1e-4)
    assert (weighted_error(rows, scale, grid, importance) <= limit + np.finfo(np.float32).tiny).all()


def test_finds_the_best_of_many_scales():
    rows = np.random.default_rng(0).standard_normal((20, 300)).astype(np.float32)
    found = weighted_error(rows, mse_scale(rows, INT4), INT4, 1)
    largest = symmetric_scale(np.abs(rows).max(axis=1), INT4)
    tried = [weighted_error(rows, (largest * part).astype(np.float32), INT4, 1) for part in np.linspace(0.3, 1, 500)]
    assert (found <= np.min(tried, axis=0) * 1.02).all()
    assert found.sum() < 0.8 * weighted_error(rows, largest, INT4, 1).sum()


def test_what_matters_less_may_saturate():
    rows = np.array([[1.0, 0.9, -0.7, 0.55, 4.0]], np.float32)
    importance = np.array([1, 1, 1, 1, 1e-6])
    assert mse_scale(rows, INT4, importance=importance)[0] < 0.6 * mse_scale(rows, INT4)[0]
    by_row = mse_scale(np.repeat(rows, 2, axis=0), INT4, importance=np.stack([importance, np.ones(5)]))
    np.testing.assert_array_equal(by_row, [mse_scale(rows, INT4, importance=importance)[0], mse_scale(rows, INT4)[0]])


@pytest.mark.parametrize("width", [64, 70, 1])
def test_blocks_have_scales_of_their_own(width):
    rows = np.random.default_rng(1).standard_normal((3, width)).astype(np.float32)
    rows[0, 32:64] *= 100
    scale = mse_scale(rows, INT4, block=32)
    assert scale.shape == (3, -(-width // 32))
    for index in range(scale.shape[1]):
        np.testing.assert_array_equal(scale[:, index], mse_scale(rows[:, 32 * index : 32 * index + 32], INT4))


def test_values_on_the_grid_stay():
    rows = np.arange(-7, 8, dtype=np.float32)[np.newaxis] * np.float32(0.25)
    np.testing.assert_array_equal(mse_scale(rows, INT4), [0.25])
    np.testing.assert_array_equal(mse_scale(np.zeros((1, 4), np.float32), INT4), [1])


def test_large_weights_are_searched_piece_by_piece():
    rows = np.random.default_rng(2).standard_normal((40, 20000)).astype(np.float16)
    scale = mse_scale(rows, INT4)
    alone = np.concatenate([mse_scale(rows[:1], INT4), mse_scale(rows[39:], INT4)])
    np.testing.assert_allclose(scale[[0, 39]], alone, rtol=1e-6, atol=0)  # sums in another order


@pytest.mark.parametrize("importance", [[-1.0, 1], [np.nan, 1]])
def test_refuses_an_importance_that_is_none(importance):
    with pytest.raises(ValueError, match="finite and not negative"):
        mse_scale(np.ones((1, 2)), INT4, importance=np.array(importance))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_weights_that_are_not_finite(value):
    with pytest.raises(ValueError, match="finite"):
        mse_scale(np.array([[1, value]], np.float32), INT4)
