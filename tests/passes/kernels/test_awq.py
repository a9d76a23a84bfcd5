import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.awq import input_scale, search_scale
from onnxpress.passes.kernels.blocks import code_grid, nearest_steps, rounded
from onnxpress.passes.kernels.lattice import squared_errors


def nearest(rows):
    grid = code_grid(4)
    return rounded(rows, nearest_steps(rows, block=32, grid=grid, symmetric=False), grid)


def moment_of(random, spread):
    x = random.standard_normal((200, 64)).astype(np.float32) * spread
    return x.T @ x


@given(st.integers(0, 1000))
def test_is_never_worse_than_no_scale(seed):
    random = np.random.default_rng(seed)
    weight = random.standard_normal((16, 64)).astype(np.float32)
    moment = moment_of(random, np.exp(random.standard_normal(64)).astype(np.float32))
    found = search_scale(weight, moment, nearest)
    assert found.error <= found.plain
    lost = nearest(weight * found.scale) / found.scale - weight
    assert found.error == pytest.approx(squared_errors(lost, moment).sum(), rel=1e-5)


def test_inputs_that_are_large_get_finer_weights():
    random, spread = np.random.default_rng(0), np.ones(64, np.float32)
    spread[[3, 40]] = 30
    found = search_scale(random.standard_normal((32, 64)).astype(np.float32), moment_of(random, spread), nearest)
    assert found.alpha > 0
    assert found.error < 0.7 * found.plain
    assert found.scale[[3, 40]].min() > found.scale[np.arange(64) % 37 != 3].max()


def test_inputs_that_were_never_seen_count_as_the_smallest():
    scale = input_scale(np.diag(np.float32([0, 4, 16])), alpha=0.5)
    assert scale[0] == scale[1]
    np.testing.assert_allclose(scale[2] / scale[1], 2**0.5, rtol=1e-6)
    np.testing.assert_array_equal(input_scale(np.zeros((2, 2)), alpha=0.5), [1, 1])
