import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxpress.passes.kernels.equalization import equalizing, noise

modest = settings(deadline=None, derandomize=True, max_examples=60)
ranges = arrays(np.float64, 9, elements=st.floats(0.01, 100))


@modest
@given(first=ranges, second=ranges)
def test_both_sides_become_proportional_and_the_product_stays(first, second):
    scale = equalizing(first, second)
    one, other = first / scale, second * scale
    np.testing.assert_allclose(one * other, first * second, rtol=1e-9)  # float64 rounding
    np.testing.assert_allclose(one / one[0], other / other[0], rtol=1e-9)
    assert np.log(scale).mean() == pytest.approx(0, abs=1e-9)


@modest
@given(first=ranges, second=ranges)
def test_equal_ranges_need_no_more(first, second):
    scale = equalizing(first, second)
    np.testing.assert_allclose(equalizing(first / scale, second * scale), 1, rtol=1e-9)


@modest
@given(first=ranges, second=ranges)
def test_never_adds_noise(first, second):
    scale = equalizing(first, second)
    assert noise(first / scale, second * scale) <= noise(first, second) + 1e-9


@modest
@given(first=ranges, second=ranges, common=st.floats(0.1, 10))
def test_noise_is_relative(first, second, common):
    assert noise(first * common, second) == pytest.approx(noise(first, second), abs=1e-9)


def test_channels_that_one_side_does_not_use_stay():
    scale = equalizing(np.array([0.0, 1.0, 4.0]), np.array([3.0, 0.0, 1.0]))
    np.testing.assert_array_equal(scale, [1.0, 1.0, 1.0])  # one channel left, of mean one


def test_nothing_in_use_is_left_alone():
    np.testing.assert_array_equal(equalizing(np.zeros(3), np.ones(3)), np.ones(3))
    assert noise(np.zeros(3), np.ones(3)) == -np.inf


def test_one_step_is_bounded():
    scale = equalizing(np.array([1e6, 2.0]), np.array([1e-3, 500.0]))
    assert scale[0] / scale[1] == pytest.approx(1e3 / np.sqrt(2 / 500))  # not √(1e6 / 1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_refuses_ranges_that_are_none(bad):
    with pytest.raises(ValueError, match="finite and not negative"):
        equalizing(np.array([1.0, bad]), np.ones(2))
