"""Rounding that makes up for errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.affine import Grid
from onnxpress.passes.kernels.gptq import gptq
from onnxpress.passes.kernels.lattice import Lattice, rounding, squared_errors
from onnxpress.passes.kernels.scales import mse_scale

INT4 = Grid(-7, 7, np.dtype(np.int8))
UINT4 = Grid(0, 15, np.dtype(np.uint8))


def correlated(draw, count, width):
    """Inputs that depend on one another, of very different size."""
    mixed = draw.standard_normal((count, width)) @ draw.standard_normal((width, width))
    return (mixed * np.exp(draw.standard_normal(width))).astype(np.float32)


def frantar(weight, moment, lattice, damping):
    """The algorithm as published: with the Cholesky factor of the inverse, one column after the other."""
    wide, width = weight.astype(np.float64), weight.shape[1]
    square = moment + np.eye(width) * damping * np.diag(moment).mean()
    upper = np.linalg.cholesky(np.linalg.inv(square)).T
    scale, zero = (np.broadcast_to(each, weight.shape) for each in lattice.columns(width))
    codes = np.empty(weight.shape, lattice.grid.dtype)
    for column in range(width):
        code = np.rint(wide[:, column] / scale[:, column]) + zero[:, column]
        codes[:, column] = np.clip(code, lattice.grid.low, lattice.grid.high)
        lost = wide[:, column] - (codes[:, column] - zero[:, column]) * scale[:, column]
        wide[:, column:] -= np.outer(lost / upper[column, column], upper[column, column:])
    return codes


@pytest.mark.parametrize("block", [None, 16])
def test_gives_the_codes_of_the_published_algorithm(block):
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((30, 150)).astype(np.float32)
    inputs = correlated(draw, 400, 150)
    moment = inputs.T.astype(np.float64) @ inputs
    lattice = Lattice.of(mse_scale(weight, INT4, block=block), INT4, width=150, block=block)
    found = gptq(weight, moment, lattice, damping=0.01, order=None)
    wanted = frantar(weight, moment, lattice, 0.01)
    # a value near the middle between two codes may be rounded otherwise in float32, and what comes after it too
    assert np.mean(found.codes == wanted) > 0.9
    best = squared_errors(weight - lattice.values(wanted), moment).sum()
    np.testing.assert_allclose(found.errors.sum(), best, rtol=0.02, atol=0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 90),
    st.sampled_from([None, 1, 8, 33]),
    st.sampled_from(["activation", None]),
    st.integers(0, 999),
)
def test_no_row_is_worse_than_rounded_to_nearest(groups, rows, width, block, order, seed):
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((groups * rows, width)).astype(np.float32)
    inputs = np.stack([correlated(draw, draw.integers(1, 60), width)[:1].repeat(2, 0) for _ in range(groups)])
    inputs = inputs * (draw.random((groups, 1, width)) < 0.8)
    moment = inputs.transpose(0, 2, 1) @ inputs
    blocks = -(-width // block) if block else 1
    scale = draw.uniform(0.05, 0.3, (len(weight), blocks)).astype(np.float32)
    zero = draw.integers(0, 16, scale.shape)
    lattice = Lattice.of(scale if block else scale[:, 0], UINT4, width=width, zero=zero, block=block)
    found = gptq(weight, moment, lattice, order=order)
    nearest = squared_errors(weight - lattice.values(lattice.nearest(weight)), moment)
    assert (found.errors <= nearest).all()
    np.testing.assert_array_equal(found.errors, squared_errors(weight - found.lattice.values(found.codes), moment))
    assert found.codes.dtype == np.uint8
    assert found.codes.max() <= 15


@pytest.mark.parametrize(("order", "most"), [("activation", 0.35), (None, 0.75)])
def test_beats_rounding_to_nearest_on_correlated_inputs(order, most):
    draw = np.random.default_rng(1)
    weight, inputs = draw.standard_normal((64, 128)).astype(np.float32), correlated(draw, 600, 128)
    moment = inputs.T @ inputs
    lattice = Lattice.of(mse_scale(weight, INT4), INT4, width=128)
    nearest = rounding(weight, lattice.nearest(weight), lattice, moment).errors.sum()
    assert gptq(weight, moment, lattice, order=order).errors.sum() < most * nearest


@pytest.mark.parametrize("order", ["activation", None])
@pytest.mark.parametrize("width", [96, 100])
def test_scales_of_blocks_follow_the_weights_as_they_become(order, width):
    draw = np.random.default_rng(2)
    weight, inputs = draw.standard_normal((40, width)).astype(np.float32), correlated(draw, 600, width)
    moment = np.stack([inputs.T @ inputs] * 2)
    seen = []

    def choose(rows, importance):
        seen.append(rows.shape)
        assert importance.shape == rows.shape
        return mse_scale(rows, INT4, importance=importance), np.zeros(len(rows), np.float32)

    lattice = Lattice.of(mse_scale(weight, INT4, block=32), INT4, width=width, block=32)
    found = gptq(weight, moment, lattice, choose=choose, order=order)
    assert seen == [(40, min(32, width - start)) for start in range(0, width, 32)]
    nearest = rounding(weight, lattice.nearest(weight), lattice, moment)
    assert found.errors.sum() < 0.5 * nearest.errors.sum()
    taken = found.errors < nearest.errors
    assert taken.any()
    assert (found.lattice.scale[taken] != lattice.scale[taken]).any()


def test_inputs_that_were_never_seen_are_rounded_to_nearest():
    draw = np.random.default_rng(3)
    weight, inputs = draw.standard_normal((9, 40)).astype(np.float32), correlated(draw, 200, 40)
    inputs[:, ::3] = 0
    lattice = Lattice.of(mse_scale(weight, INT4), INT4, width=40)
    found = gptq(weight, inputs.T @ inputs, lattice)
    np.testing.assert_array_equal(found.codes[:, ::3], lattice.nearest(weight)[:, ::3])
    unseen = gptq(weight, np.zeros((40, 40)), lattice)
    np.testing.assert_array_equal(unseen.codes, lattice.nearest(weight))
    assert not unseen.errors.any()


def test_weights_on_the_lattice_stay():
    draw = np.random.default_rng(4)
    codes, inputs = draw.integers(-7, 8, (6, 30)), correlated(draw, 100, 30)
    lattice = Lattice.of(np.full(6, 0.5), INT4, width=30)
    np.testing.assert_array_equal(gptq(codes * 0.5, inputs.T @ inputs, lattice).codes, codes)


def test_damps_more_where_the_moment_has_no_factor():
    draw = np.random.default_rng(5)
    weight, row = draw.standard_normal((4, 20)).astype(np.float32), draw.standard_normal((1, 20))
    moment = row.T @ row
    moment -= 1e-3 * np.eye(20)  # what rounding may do to a moment of rank 1
    lattice = Lattice.of(mse_scale(weight, INT4), INT4, width=20)
    found = gptq(weight, moment, lattice, damping=0.0)
    assert found.errors.sum() < rounding(weight, lattice.nearest(weight), lattice, moment).errors.sum()


def test_refuses_what_is_no_moment():
    lattice = Lattice.of(np.ones(2), INT4, width=2)
    with pytest.raises(ValueError, match="negative directions"):
        gptq(np.ones((2, 2)), np.array([[1, 1e9], [1e9, 1]]), lattice)
    with pytest.raises(ValueError, match="do not fit"):
        gptq(np.ones((2, 2)), np.eye(3), lattice)


def test_a_weight_of_no_rows_has_no_codes():
    lattice = Lattice.of(np.zeros(0), INT4, width=3)
    assert gptq(np.zeros((0, 3), np.float32), np.eye(3), lattice).codes.shape == (0, 3)
