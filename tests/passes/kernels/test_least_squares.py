"""Weights fitted by least squares: as numpy.linalg.lstsq has them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.least_squares import choose_ridge, error, solve
from onnxpress.passes.kernels.normal import Normal


def problem(seed, *, n=80, k=7, rows=3, groups=1, noise=0.1, offset=0.0):
    """Rows, outputs, a weight to begin with."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((groups, n, k)) * np.exp(draw.standard_normal(k)) + offset
    weight = draw.standard_normal((groups, rows, k))
    y = x @ weight.transpose(0, 2, 1) + noise * draw.standard_normal((groups, n, rows)) + 3 * offset
    return x, y, draw.standard_normal((groups * rows, k))


def fitted(x, y, support, *, bias, ridge_rows=0.0, start=None):
    """One output by numpy.linalg.lstsq, drawn towards `start` by additional rows."""
    start = np.zeros(x.shape[1]) if start is None else start
    left = np.concatenate([x, np.sqrt(ridge_rows) * np.eye(x.shape[1])])[:, support]
    right = np.concatenate([y, np.sqrt(ridge_rows) * start])
    if bias:
        left = np.c_[left, np.r_[np.ones(len(x)), np.zeros(x.shape[1])]]
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    weight = np.zeros(x.shape[1])
    weight[support] = found[: np.count_nonzero(support)]
    return weight, found[-1] if bias else 0.0


@settings(max_examples=40)
@given(st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from([1, 3]), st.sampled_from([0.0, 0.01, 1.0]))
def test_is_what_lstsq_finds(seed, bias, masked, groups, ridge):
    x, y, start = problem(seed, groups=groups, offset=1.0)
    mask = np.random.default_rng(seed).random(start.shape) < 0.6 if masked else np.ones(start.shape, np.bool_)
    normal = Normal.of(x, y)
    found, delta = solve(normal, start, ridge=ridge, mask=mask if masked else None, bias=bias)
    assert (delta is not None) == bias
    start = np.where(mask, start, 0)
    for out, support in enumerate(mask):
        group = out // 3
        centred = x[group] - x[group].mean(axis=0) if bias else x[group]
        drawn = ridge * (centred**2).sum(axis=0).mean()
        weight, intercept = fitted(
            x[group], y[group, :, out % 3], support, bias=bias, ridge_rows=drawn, start=start[out]
        )
        # normal equations square the condition, 1e4 at most here
        np.testing.assert_allclose(found[out], weight, rtol=1e-5, atol=1e-6)
        if delta is not None:
            np.testing.assert_allclose(delta[out], intercept, rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 99), st.booleans(), st.integers(1, 5), st.integers(1, 9))
def test_error_is_that_of_the_rows(seed, bias, n, k):
    x, y, weight = problem(seed, n=n, k=k, groups=2)
    delta = np.random.default_rng(seed).standard_normal(len(weight)) if bias else None
    given = x @ weight.reshape(2, 3, k).transpose(0, 2, 1)
    given = given + delta.reshape(2, 1, 3) if delta is not None else given
    wanted = np.linalg.norm(y - given) / np.linalg.norm(y)
    np.testing.assert_allclose(error(Normal.of(x, y), weight, delta), wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_fewer_rows_than_inputs_and_dependent_inputs_are_fitted_exactly(ridge):
    x, y, start = problem(1, n=5, k=9, noise=0.0)
    x[..., 3] = x[..., 2]
    normal = Normal.of(x, y)
    found, _ = solve(normal, start, ridge=ridge)
    assert error(normal, start) > 0.5
    assert error(normal, found) < 1e-2


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_inputs_without_a_say_keep_their_weights(bias, masked):
    x, y, start = problem(2)
    x[..., 4] = 0
    if bias:
        x[..., 5] = 7
    mask = np.ones(start.shape, np.bool_) if masked else None
    found, delta = solve(Normal.of(x, y), start, ridge=1e-6, mask=mask, bias=bias)
    np.testing.assert_array_equal(found[:, 4], start[:, 4])
    assert (found[:, 3] != start[:, 3]).all()
    if bias:
        np.testing.assert_array_equal(found[:, 5], start[:, 5])
        short = (y[0] - x[0] @ found.T).mean(axis=0)
        np.testing.assert_allclose(delta, short, rtol=1e-9, atol=1e-9)


def test_an_infinite_ridge_leaves_the_weight():
    x, y, start = problem(3, offset=2.0)
    found, delta = solve(Normal.of(x, y), start, ridge=math.inf, bias=True)
    np.testing.assert_array_equal(found, start)
    np.testing.assert_allclose(delta, (y[0] - x[0] @ start.T).mean(axis=0), rtol=1e-9, atol=1e-9)


def test_nothing_that_is_given_is_written_into():
    x, y, start = problem(4, offset=1.0)
    normal, mask = Normal.of(x, y), np.random.default_rng(0).random(start.shape) < 0.5
    before = [each.copy() for each in (normal.moment, normal.cross, start, mask)]
    choose_ridge(normal, normal, start, mask=mask, bias=True)
    solve(normal, start, ridge=0.1, bias=True)
    for each, old in zip((normal.moment, normal.cross, start, mask), before, strict=True):
        np.testing.assert_array_equal(each, old)


def test_the_ridge_is_best_on_other_rows():
    ridges = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)
    x, y, start = problem(5, n=60, k=20, noise=2.0)
    fit, other = Normal.of(x[:, :30], y[:, :30]), Normal.of(x[:, 30:], y[:, 30:])
    choice = choose_ridge(fit, other, start, ridges=ridges)
    errors = {ridge: error(other, solve(fit, start, ridge=ridge)[0]) for ridge in ridges}
    assert choice.ridge == min(errors, key=errors.__getitem__)
    assert choice.after == errors[choice.ridge] < choice.before == error(other, start)
    assert choice.ridge > 1e-4  # few rows with much noise want some


def test_leaves_a_weight_that_is_best_as_it_is():
    draw = np.random.default_rng(6)
    weight, x = draw.standard_normal((3, 20)), draw.standard_normal((1, 400, 20))
    y = x @ weight.T
    noisy = y[:, :25] + 5 * draw.standard_normal((1, 25, 3))
    choice = choose_ridge(Normal.of(x[:, :25], noisy), Normal.of(x[:, 25:], y[:, 25:]), weight, ridges=(0.1, 0.01))
    assert math.isinf(choice.ridge)
    assert choice.after == choice.before


def test_a_sample_of_outputs_chooses_the_ridge_of_masked_weights():
    x, y, _ = problem(7, n=300, rows=200)
    start = np.zeros((200, 7))
    mask = np.random.default_rng(0).random(start.shape) < 0.7
    fit, other = Normal.of(x[:, :200], y[:, :200]), Normal.of(x[:, 200:], y[:, 200:])
    choice = choose_ridge(fit, other, start, mask=mask)
    chosen = np.linspace(0, 199, 24).astype(int)
    parts = (each.outputs(chosen) for each in (fit, other))
    assert choice == choose_ridge(*parts, start[chosen], mask=mask[chosen])


def test_outputs_of_zero_have_no_relative_error():
    zeros = Normal.of(np.ones((1, 3, 2)), np.zeros((1, 3, 1)))
    assert error(zeros, np.zeros((1, 2))) == 0
    assert error(zeros, np.ones((1, 2))) == math.inf


def test_refuses_what_does_not_fit():
    x, y, start = problem(9)
    normal = Normal.of(x, y)
    with pytest.raises(ValueError, match=r"weights of shape \[2, 7\] do not fit equations for \[3, 7\]"):
        solve(normal, start[1:], ridge=1.0)
    with pytest.raises(ValueError, match=r"a mask of shape \[3, 6\]"):
        solve(normal, start, ridge=1.0, mask=np.ones((3, 6), np.bool_))
    for ridge in (-1.0, math.nan):
        with pytest.raises(ValueError, match="is negative"):
            solve(normal, start, ridge=ridge)
    with pytest.raises(ValueError, match="no rows to fit"):
        solve(Normal.empty(1, 3, 7), start, ridge=1.0)
    with pytest.raises(ValueError, match="not finite"):
        solve(normal, start * math.nan, ridge=1.0)
    with pytest.raises(ValueError, match="not finite"):
        error(normal + replace(normal, energy=normal.energy * math.inf), start)
    with pytest.raises(ValueError, match="rows held out are of shape"):
        choose_ridge(normal, Normal.of(x, y[..., 1:]), start)


@pytest.mark.parametrize("groups", [1, 2])
def test_leaves_the_moments_unless_they_may_be_used_up(groups):
    x, y, start = problem(3, groups=groups, n=700, k=300, offset=1.0)  # more than is centred at once
    normal = Normal.of(x, y)
    before = normal.moment.copy()
    found, delta = solve(normal, start, ridge=0.1, bias=True)
    np.testing.assert_array_equal(normal.moment, before)
    again, same = solve(normal, start, ridge=0.1, bias=True, overwrite=True)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(same, delta)
