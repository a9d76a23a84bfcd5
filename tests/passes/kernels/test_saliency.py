"""What single weights are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.saliency import magnitude, obd, wanda


def drawn(seed, groups=1, rows=4, k=6):
    """A weight, inputs [groups, n, k] and their moments."""
    draw = np.random.default_rng(seed)
    inputs = draw.standard_normal((groups, 20, k)) * np.exp(draw.standard_normal(k))
    return draw.standard_normal((groups * rows, k)).astype(np.float32), inputs, inputs.transpose(0, 2, 1) @ inputs


@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3))
def test_obd_is_what_the_squared_error_grows_by_when_one_weight_goes(seed, groups):
    weight, inputs, moment = drawn(seed, groups)
    scores = obd(weight, moment)
    row, column = seed % len(weight), seed % weight.shape[1]
    lost = weight[row, column].astype(np.float64) * inputs[row // 4, :, column]
    assert scores[row, column] == pytest.approx(lost @ lost, rel=1e-9)


@given(seed=st.integers(0, 10**6))
def test_wanda_ranks_the_weights_of_each_output_as_obd_does(seed):
    weight, _, moment = drawn(seed)
    np.testing.assert_array_equal(np.argsort(wanda(weight, moment)), np.argsort(obd(weight, moment)))


def test_wanda_compares_within_an_output_so_large_outputs_count_no_more():
    weight, _, moment = drawn(0)
    larger = weight * np.array([[1], [100], [1], [0.01]], np.float32)
    np.testing.assert_array_equal(wanda(weight, moment), wanda(larger, moment))
    assert wanda(weight, moment).max() == 1


def test_magnitude_is_the_square_in_float64():
    weight = np.array([[3e30, -2.0]], np.float32)
    np.testing.assert_allclose(magnitude(weight), [[9e60, 4.0]], rtol=1e-6)  # of float32 input


@pytest.mark.parametrize("score", [obd, wanda])
@pytest.mark.parametrize("shape", [(6, 6), (1, 5, 5), (3, 6, 6)])
def test_refuses_moments_that_do_not_fit(score, shape):
    with pytest.raises(ValueError, match="do not fit a weight"):
        score(np.ones((4, 6)), np.ones(shape))
