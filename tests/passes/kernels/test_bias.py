"""Biases that take away mean errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.bias import bias_correction, central_moment
from onnxpress.passes.kernels.lattice import squared_errors


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_mean_error_is_gone_and_the_central_moment_tells_the_rest(groups, rows, width, seed):
    draw = np.random.default_rng(seed)
    error = draw.standard_normal((groups * rows, width))
    inputs = draw.standard_normal((groups, 30, width)) + draw.standard_normal((groups, 1, width))
    left = np.einsum("gok,gnk->gon", error.reshape(groups, rows, width), inputs).reshape(-1, 30)
    left -= bias_correction(error, inputs.mean(axis=1))[:, np.newaxis]
    # float32 sums of a few numbers of size about 1
    np.testing.assert_allclose(left.mean(axis=1), 0, rtol=0, atol=1e-6)
    total = np.einsum("gni,gnj->gij", inputs, inputs)
    central = central_moment(total, inputs.sum(axis=1), 30)
    np.testing.assert_allclose(squared_errors(error, central), (left**2).sum(axis=1), rtol=1e-4, atol=1e-4)


def test_one_group_may_be_a_plain_row():
    np.testing.assert_array_equal(bias_correction(np.array([[1.0, 2], [3, 4]]), np.array([1.0, 10])), [21, 43])


def test_constant_inputs_leave_no_variance():
    total = np.full((1, 1, 1), 0.3, np.float32) ** 2 * 7
    assert central_moment(total, np.array([[0.3 * 7]]) * 1.0001, 7)[0, 0, 0] == 0


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit errors"):
        bias_correction(np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="no rows"):
        central_moment(np.zeros((1, 2, 2)), np.zeros((1, 2)), 0)
