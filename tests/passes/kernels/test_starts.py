"""Where alternating least squares start from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lowrank import spatial_matrix, svd
from onnxpress.passes.kernels.multilinear import dense, fit
from onnxpress.passes.kernels.starts import (
    channel_start,
    cp_start,
    separable_start,
    spatial_start,
    train_limits,
    train_start,
    tucker_start,
)
from onnxpress.passes.kernels.whitened import rank_errors, whitened_svd

modest = settings(deadline=None, derandomize=True, max_examples=30)
kernels = {
    "seed": st.integers(0, 10_000),
    "out": st.integers(1, 6),
    "channels": st.integers(1, 5),
    "sides": st.lists(st.integers(1, 3), min_size=1, max_size=3),
    "rows": st.sampled_from([None, 2, 200]),
}


def layer(seed, out, channels, sides, rows):
    """A kernel, and second moments of what it reads: None, singular, or of many rows."""
    rng = np.random.default_rng(seed)
    k = channels * int(np.prod(sides))
    if rows is None:
        return rng.standard_normal((out, channels, *sides)), None
    inputs = rng.standard_normal((rows, k)) * np.exp(rng.standard_normal(k))
    return rng.standard_normal((out, channels, *sides)), inputs.T @ inputs


def exact(start, kernel, *, rtol=1e-6):
    """Half of float64's digits: roots of metrics and Gram matrices have squared conditions."""
    assert relative_error(kernel, dense(start.expression, start.factors)) < rtol


@modest
@given(**kernels)
def test_full_ranks_reproduce_the_kernel(seed, out, channels, sides, rows):
    kernel, metric = layer(seed, out, channels, sides, rows)
    taps = int(np.prod(sides))
    exact(channel_start(kernel, metric, min(out, channels * taps)), kernel)
    exact(tucker_start(kernel, metric, (out, channels)), kernel)
    exact(train_start(kernel, metric, train_limits(kernel.shape)), kernel)
    exact(separable_start(kernel, metric, min(out, taps)), kernel)
    if len(sides) == 2:
        exact(spatial_start(kernel, metric, min(out * sides[1], channels * sides[0])), kernel)


def test_expressions_and_shapes_are_those_of_the_layers():
    kernel, metric = layer(0, 6, 5, (3, 2), 100)
    found = [
        channel_start(kernel, metric, 4),
        spatial_start(kernel, metric, 4),
        tucker_start(kernel, metric, (4, 3)),
        cp_start(kernel, metric, 7),
        train_start(kernel, metric, (2, 3, 4)),
        separable_start(kernel, metric, 2),
    ]
    assert [(each.expression, [factor.shape for factor in each.factors]) for each in found] == [
        ("or,riyx->oiyx", [(6, 4), (4, 5, 3, 2)]),
        ("orx,riy->oiyx", [(6, 4, 2), (4, 5, 3)]),
        ("or,rsyx,si->oiyx", [(6, 4), (4, 3, 3, 2), (3, 5)]),
        ("or,ryx,ri->oiyx", [(6, 7), (7, 3, 2), (7, 5)]),
        ("or,rxq,qys,si->oiyx", [(6, 4), (4, 2, 3), (3, 3, 2), (2, 5)]),
        ("ois,isyx->oiyx", [(6, 5, 2), (5, 2, 3, 2)]),
    ]
    line, volume = layer(0, 6, 5, (3,), None)[0], layer(0, 6, 5, (3, 2, 2), None)[0]
    assert train_start(line, None, (2, 4)).expression == "or,rxs,si->oix"
    assert train_start(volume, None, (2, 3, 3, 4)).expression == "or,rxp,pyq,qzs,si->oizyx"


def test_optimal_starts_leave_the_error_that_singular_values_tell():
    kernel, metric = layer(1, 6, 5, (3, 2), 100)
    for rank in (1, 3, 5):
        start = channel_start(kernel, metric, rank)
        expected = rank_errors(whitened_svd(kernel.reshape(6, -1), metric).values)[rank]
        error = fit(start.expression, start.factors, kernel, metric, sweeps=0)[1]
        np.testing.assert_allclose(error, expected, rtol=1e-6, atol=0)
        start = spatial_start(kernel, None, rank)
        expected = rank_errors(svd(spatial_matrix(kernel)).values)[rank]
        np.testing.assert_allclose(
            relative_error(kernel, dense(start.expression, start.factors)), expected, rtol=1e-6, atol=0
        )


def test_separable_sums_are_optimal_for_each_channel():
    kernel, _ = layer(2, 6, 5, (3, 3), None)
    start = separable_start(kernel, None, 2)
    wide = dense(start.expression, start.factors)
    for channel in range(5):
        own = kernel[:, channel].reshape(6, -1)
        lost = np.linalg.norm(own - wide[:, channel].reshape(6, -1))
        np.testing.assert_allclose(lost, np.sqrt(np.square(svd(own).values[2:]).sum()), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda kernel, metric: spatial_start(kernel, metric, 4),
        lambda kernel, metric: tucker_start(kernel, metric, (4, 3)),
        lambda kernel, metric: cp_start(kernel, metric, 6),
        lambda kernel, metric: train_start(kernel, metric, (3, 5, 4)),
        lambda kernel, metric: separable_start(kernel, metric, 2),
    ],
)
def test_a_metric_makes_better_starts(make):
    kernel, metric = layer(5, 8, 6, (3, 3), 300)

    def error(start):
        return fit(start.expression, start.factors, kernel, metric, sweeps=0)[1]

    assert error(make(kernel, metric)) < error(make(kernel, None))


def test_train_limits_are_ranks_of_the_unfoldings():
    assert train_limits((6, 5, 3, 2)) == (5, 12, 6)
    assert train_limits((100, 5, 3, 2)) == (5, 15, 30)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda w: channel_start(w, None, 5), r"rank must lie in 1\.\.4"),
        (lambda w: spatial_start(w[..., 0], None, 1), "kh, kw"),
        (lambda w: tucker_start(w, None, (5, 1)), "output rank must lie"),
        (lambda w: cp_start(w[:, :, 0, 0], None, 2), "with 1..3 axes"),
        (lambda w: train_start(w, None, (1, 9, 1)), "ranks of a train must lie"),
        (lambda w: train_start(w, None, (1, 1)), r"must lie in 1\.\.\(3, 6, 4\), got \(1, 1\)"),
        (lambda w: separable_start(w, None, 5), r"rank must lie in 1\.\.4"),
        (lambda w: tucker_start(w, np.eye(3), (1, 1)), "has no metric"),
        (lambda w: tucker_start(w * np.nan, None, (1, 1)), "not finite"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call(np.ones((4, 3, 2, 2)))
