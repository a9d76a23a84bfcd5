import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.blocks import code_grid, nearest_steps, rounded
from onnxpress.passes.kernels.hqq import block_errors, half_quadratic_steps


@given(st.integers(0, 1000), st.sampled_from([8, 4, 2]), st.booleans(), st.sampled_from([0.7, 1.0, 2.0]))
def test_no_block_is_worse_than_where_it_began(seed, bits, symmetric, norm):
    weight, grid = np.random.default_rng(seed).standard_t(3, (3, 50)).astype(np.float32), code_grid(bits)
    start = nearest_steps(weight, block=16, grid=grid, symmetric=symmetric)
    better = half_quadratic_steps(weight, start, grid, norm=norm)
    before, after = (block_errors(weight, each, grid) for each in (start, better))
    assert (after <= before).all()
    assert (better.zero is None) == symmetric


@pytest.mark.parametrize("symmetric", [True, False])
def test_saturates_the_largest_for_the_sake_of_the_rest(symmetric):
    weight = np.random.default_rng(0).standard_normal((4, 128)).astype(np.float32)
    start = nearest_steps(weight, block=128, grid=code_grid(2), symmetric=symmetric)
    better = half_quadratic_steps(weight, start, code_grid(2))
    assert (np.abs(better.scale) < np.abs(start.scale)).all()
    before, after = (block_errors(weight, each, code_grid(2)).sum() for each in (start, better))
    assert after < 0.6 * before


def test_weights_on_the_grid_stay_exact():
    weight = (np.arange(-8, 8, dtype=np.float32) * 0.25)[None]
    start = nearest_steps(weight, block=16, grid=code_grid(4), symmetric=False)
    better = half_quadratic_steps(weight, start, code_grid(4))
    np.testing.assert_allclose(rounded(weight, better, code_grid(4)), weight, rtol=1e-6, atol=0)
