"""Activations as rows; tests/passes/test_inputs.py compares them with what ONNX Runtime computes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.calibration.views import Columns, LastAxis, Patches, spread
from onnxpress.rewriter.errors import ConfigError


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(0, 5000), st.integers(1, 600))
def test_spread_takes_one_position_of_each_stretch(total, count):
    positions = spread(total, count)
    assert len(positions) == min(total, count)
    begins = np.arange(len(positions) + 1) * total // max(1, len(positions))
    assert (begins[:-1] <= positions).all()
    assert (positions < begins[1:]).all()


def test_spread_does_not_fall_into_columns():
    assert len(set(spread(64 * 64, 64) % 64)) > 32


def test_rows_of_a_convolution_follow_the_positions_asked_for():
    view = Patches(kernel=(2, 2), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    array = np.arange(2 * 1 * 3 * 3, dtype=np.uint8).reshape(2, 1, 3, 3)
    assert view.count(array.shape) == 8
    rows = view.rows(array, np.array([7, 0, 0]))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[[13, 14, 16, 17], [0, 1, 3, 4], [0, 1, 3, 4]]])


def test_a_kernel_that_does_not_fit_has_no_rows():
    view = Patches(kernel=(5,), strides=(1,), pads=(0, 0), dilations=(1,), groups=2)
    assert view.count((3, 4, 2)) == 0
    assert view.rows(np.zeros((3, 4, 2), np.float32)).shape == (2, 0, 10)


def test_an_activation_without_entries_may_have_rows_of_padding():
    view = Patches(kernel=(2,), strides=(1,), pads=(1, 1), dilations=(1,))
    np.testing.assert_array_equal(view.rows(np.zeros((1, 3, 0), np.float32)), np.zeros((1, 1, 6)))


def test_float16_becomes_float32():
    assert LastAxis().rows(np.ones((2, 3), np.float16)).dtype == np.float32
    assert Columns().rows(np.ones((2, 3), np.float16)).dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 4), (1, 3, 5, 5), (1, 4, 5)])
def test_refuses_a_shape_that_is_none_of_the_convolution(shape):
    view = Patches(kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=2)
    with pytest.raises(ConfigError, match="none of a convolution"):
        view.rows(np.zeros(shape, np.float32))


@pytest.mark.parametrize("view", [LastAxis(), Columns()])
def test_refuses_a_number(view):
    with pytest.raises(ConfigError, match="a number is no activation"):
        view.count(())
    with pytest.raises(ConfigError, match="a number is no activation"):
        view.rows(np.float32(3).reshape(()))
