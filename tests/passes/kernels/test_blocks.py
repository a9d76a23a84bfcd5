import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxpress.passes.kernels.blocks import (
    Steps,
    block_count,
    code_grid,
    from_codes,
    nearest_steps,
    rounded,
    spread_blocks,
    to_codes,
)

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 40))
WEIGHTS = SHAPES.flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-8, 8, width=32, allow_subnormal=False))
)
BITS = st.sampled_from([8, 4, 2])


@given(WEIGHTS, BITS, st.booleans(), st.sampled_from([1, 3, 16, 64]))
def test_no_error_exceeds_what_a_block_spans(weight, bits, symmetric, block):
    steps = nearest_steps(weight, block=block, grid=code_grid(bits), symmetric=symmetric)
    assert steps.scale.shape == (weight.shape[0], block_count(weight.shape[1], block))
    width = np.abs(spread_blocks(steps.scale, block, weight.shape[1]))
    # half a step, and where both ends of a symmetric block are as large, or a zero point was rounded, one step
    assert (np.abs(rounded(weight, steps, code_grid(bits)) - weight) <= width * 1.01 + 1e-6).all()


@given(WEIGHTS, BITS, st.booleans())
def test_rounding_again_changes_nothing(weight, bits, symmetric):
    grid = code_grid(bits)
    steps = nearest_steps(weight, block=16, grid=grid, symmetric=symmetric)
    codes = to_codes(weight, steps, grid)
    np.testing.assert_array_equal(to_codes(from_codes(codes, steps), steps, grid), codes)
    assert codes.dtype == np.int8
    assert codes.min() >= grid.low
    assert codes.max() <= grid.high


@given(WEIGHTS, BITS)
def test_zeros_stay_zeros_beside_others(weight, bits):
    weight = weight.copy()
    weight[:, 0] = 0
    steps = nearest_steps(weight, block=16, grid=code_grid(bits), symmetric=False)
    assert (rounded(weight, steps, code_grid(bits))[:, 0] == 0).all()


def test_symmetric_codes_use_their_lowest_for_the_largest_entry():
    weight = np.array([[3.0, -0.5, 1.0, 0.2], [-3.0, 0.5, -1.0, 0.2]], np.float32)
    steps = nearest_steps(weight, block=4, grid=code_grid(4), symmetric=True)
    np.testing.assert_array_equal(steps.scale[:, 0], np.float32([-3 / 8, 3 / 8]))
    assert steps.zero is None
    np.testing.assert_array_equal(to_codes(weight, steps, code_grid(4))[:, 0], [-8, -8])


def test_a_block_of_zeros_has_scale_one():
    steps = nearest_steps(np.zeros((2, 20), np.float32), block=16, grid=code_grid(4), symmetric=True)
    np.testing.assert_array_equal(steps.scale, np.ones((2, 2), np.float32))


def test_scales_are_shortened_where_all_are_normal_in_float16():
    steps = Steps(np.float32([[0.1, -0.3]]), None, 16)
    assert not steps.is_short
    assert steps.shortened().is_short
    tiny = Steps(np.float32([[0.1, 1e-6]]), None, 16)
    assert tiny.shortened() is tiny
    huge = Steps(np.float32([[0.1, 1e6]]), None, 16)
    assert huge.shortened() is huge
    assert not huge.is_short


def test_refuses_what_is_no_number():
    bad = np.array([[1, np.nan]], np.float32)
    with pytest.raises(ValueError, match="finite"):
        nearest_steps(bad, block=2, grid=code_grid(4), symmetric=False)
    with pytest.raises(ValueError, match="not a number"):
        to_codes(bad, Steps(np.ones((1, 1), np.float32), None, 2), code_grid(4))
