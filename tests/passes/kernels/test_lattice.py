"""Values that weights may have, and the error in the layer's output."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.affine import INT8_SYMMETRIC, UINT8, Grid, dequantize, quantize
from onnxpress.passes.kernels.lattice import Lattice, rounding, squared_errors

UINT4 = Grid(0, 15, np.dtype(np.uint8))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 99))
def test_rounds_as_affine_quantization_does(out, width, seed):
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((out, width)).astype(np.float32)
    scale, zero = draw.uniform(0.01, 0.1, out).astype(np.float32), draw.integers(0, 256, out).astype(np.uint8)
    lattice = Lattice.of(scale, UINT8, width=width, zero=zero)
    codes = lattice.nearest(weight)
    np.testing.assert_array_equal(codes, quantize(weight, scale, zero, grid=UINT8, axis=0))
    np.testing.assert_array_equal(lattice.values(codes), dequantize(codes, scale, zero, axis=0))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 7), st.integers(0, 99))
def test_each_block_has_its_scale_and_zero(width, block, seed):
    draw = np.random.default_rng(seed)
    blocks = -(-width // block)
    weight = draw.standard_normal((3, width)).astype(np.float32)
    scale = draw.uniform(0.01, 0.1, (3, blocks)).astype(np.float32)
    zero = draw.integers(0, 16, (3, blocks)).astype(np.uint8)
    lattice = Lattice.of(scale, UINT4, width=width, zero=zero, block=block)
    codes = lattice.nearest(weight)
    assert codes.dtype == np.uint8
    for index in range(blocks):
        part = slice(index * block, (index + 1) * block)
        wanted = quantize(weight[:, part], scale[:, index], zero[:, index], grid=UINT4, axis=0)
        np.testing.assert_array_equal(codes[:, part], wanted)
        back = dequantize(wanted, scale[:, index], zero[:, index], axis=0)
        np.testing.assert_array_equal(lattice.values(codes)[:, part], back)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 9), st.integers(0, 99))
def test_error_is_that_of_the_output(groups, rows, width, seed):
    draw = np.random.default_rng(seed)
    error, inputs = draw.standard_normal((groups * rows, width)), draw.standard_normal((groups, 20, width))
    moment = np.einsum("gni,gnj->gij", inputs, inputs)
    wanted = (np.einsum("gok,gnk->gon", error.reshape(groups, rows, width), inputs) ** 2).sum(axis=2).reshape(-1)
    # float32 sums of at most 81 products
    np.testing.assert_allclose(squared_errors(error, moment), wanted, rtol=1e-4, atol=1e-4)


def test_the_better_of_two_is_taken_row_by_row():
    weight, moment = np.array([[1.0, 0.3], [0.2, 1.0]]), np.eye(2)
    lattices = [Lattice.of(scale, INT8_SYMMETRIC, width=2) for scale in (np.array([0.1, 1]), np.array([1, 0.1]))]
    first, second = (rounding(weight, each.nearest(weight), each, moment) for each in lattices)
    best = first.or_better(second)
    np.testing.assert_allclose(best.lattice.values(best.codes), weight, rtol=1e-6, atol=0)  # 0.1 in float32
    np.testing.assert_array_equal(best.errors, np.minimum(first.errors, second.errors))


@pytest.mark.parametrize(("scale", "block"), [([1.0, 0], None), ([1.0, 1], 2), ([1.0, -1], None)])
def test_refuses_scales_that_do_not_fit(scale, block):
    with pytest.raises(ValueError, match="positive scales"):
        Lattice.of(np.array(scale), UINT4, width=4, block=block)


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2), (0, 2, 2), (2,)])
def test_refuses_moments_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="do not fit a weight"):
        squared_errors(np.zeros((3, 2)), np.zeros(shape))


def test_refuses_moments_that_are_not_finite():
    with pytest.raises(ValueError, match="must be finite"):
        squared_errors(np.zeros((3, 2)), np.full((2, 2), np.nan))
