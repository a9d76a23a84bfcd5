import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.errors import decibels, noise_at, relative_error


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_scaling_by_a_factor_costs_its_distance_from_one(seed, scale):
    array = np.random.default_rng(seed).standard_normal((3, 5))
    # float64 sums of 15 squares
    np.testing.assert_allclose(relative_error(array, array * scale), abs(1 - scale), rtol=1e-12, atol=1e-15)


def test_nothing_lost_of_nothing():
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros(3), np.ones(3)) == math.inf


def test_refuses_different_shapes():
    with pytest.raises(ValueError, match="shapes differ"):
        relative_error(np.zeros(3), np.zeros((3, 1)))


def test_spans_pieces_and_dtypes():
    array = np.ones((1 << 20) + 5, np.float16)
    # 5 parts in a million of the energy are lost
    assert relative_error(array, (np.arange(array.size) >= 5).astype(np.float32)) == math.sqrt(5 / array.size)


@pytest.mark.parametrize(
    ("noise", "expected"), [(0.0, math.inf), (0.01, 20.0), (math.inf, -math.inf), (math.nan, -math.inf)]
)
def test_gives_noise_in_decibels(noise, expected):
    assert decibels(noise) == pytest.approx(expected)


@pytest.mark.parametrize("sqnr", [math.inf, 20.0, -3.0, -math.inf])
def test_decibels_say_how_much_noise_there_is(sqnr):
    assert decibels(noise_at(sqnr)) == pytest.approx(sqnr)
