"""Factors of least output error in closed form."""

import tracemalloc
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lowrank import rank_by_energy, svd
from onnxpress.passes.kernels.whitened import rank_errors, whitened_svd

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 16)


def metric_of(seed, k, rows=None):
    """Second moments of correlated rows of different size; singular where there are fewer than k."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((rows or 3 * k, k)) @ rng.standard_normal((k, k)) * np.exp(rng.standard_normal(k))
    return inputs.T @ inputs


def lost(weight, other, metric):
    return float(np.sqrt(max(0.0, np.einsum("ok,kl,ol->", weight - other, metric, weight - other))))


def descended(weight, metric, rank, seed):
    """The least output error by alternating least squares, which knows no singular vectors."""
    left = np.random.default_rng(seed).standard_normal((len(weight), rank))
    right = None
    for _ in range(3000):
        right = np.linalg.lstsq(left, weight, rcond=None)[0]
        left = np.linalg.solve(right @ metric @ right.T, right @ metric @ weight.T).T
    return lost(weight, left @ right, metric)


@modest
@given(seed=seeds, out=sizes, k=sizes, rows=st.integers(1, 40), narrow=st.booleans())
def test_full_rank_gives_the_weight_back_whatever_the_metric(seed, out, k, rows, narrow):
    dtype = ml_dtypes.bfloat16 if narrow else np.float64
    weight = np.random.default_rng(seed).standard_normal((out, k)).astype(dtype)
    left, right = whitened_svd(weight, metric_of(seed, k, rows)).split(min(out, k))
    # what a singular metric does not see is told by a millionth of its root, so half of float64's digits are left
    assert relative_error(weight, left @ right) < 1e-6


@modest
@given(seed=seeds, out=sizes, k=sizes)
def test_values_are_the_errors_and_rows_are_orthonormal_under_the_metric(seed, out, k):
    weight, metric = np.random.default_rng(seed).standard_normal((out, k)), metric_of(seed, k)
    found = whitened_svd(weight, metric)
    whole = lost(weight, 0 * weight, metric)
    np.testing.assert_allclose(found.left.T @ found.left, np.eye(min(out, k)), rtol=0, atol=1e-10)
    for rank in range(1, min(out, k) + 1):
        left, right = found.split(rank)
        expected = np.sqrt(np.sum(found.values[rank:] ** 2))
        # the Gram matrix squares the condition: half of float64's digits
        np.testing.assert_allclose(lost(weight, left @ right, metric), expected, rtol=1e-6, atol=2e-6 * whole)


@settings(modest, max_examples=12)
@given(seed=seeds, out=st.integers(2, 7), k=st.integers(2, 7), rank=st.integers(1, 3))
def test_no_other_factors_do_better(seed, out, k, rank):
    rank = min(rank, out, k)
    weight, metric = np.random.default_rng(seed).standard_normal((out, k)), metric_of(seed, k, 60)
    left, right = whitened_svd(weight, metric).split(rank)
    best = min(descended(weight, metric, rank, seed + start) for start in range(2))
    assert lost(weight, left @ right, metric) <= best * (1 + 1e-6) + 1e-6 * lost(weight, 0 * weight, metric)


@modest
@given(seed=seeds, out=sizes, k=sizes, rows=st.integers(1, 40))
def test_errors_fall_with_the_rank_and_undercut_plain_factors(seed, out, k, rows):
    weight, metric = np.random.default_rng(seed).standard_normal((out, k)), metric_of(seed, k, rows)
    found, plain, whole = whitened_svd(weight, metric), svd(weight), lost(weight, 0 * weight, metric)
    errors = [lost(weight, np.matmul(*found.split(rank)), metric) for rank in range(1, min(out, k) + 1)]
    slack = 1e-6 * whole
    assert all(after <= before + slack for before, after in pairwise(errors))
    for rank, error in enumerate(errors, start=1):
        assert error <= lost(weight, np.matmul(*plain.split(rank)), metric) + slack


@modest
@given(seed=seeds, out=sizes, k=sizes, scale=st.sampled_from([1e-25, 1.0, 1e25]))
def test_a_metric_that_is_a_multiple_of_the_identity_changes_nothing(seed, out, k, scale):
    weight = np.random.default_rng(seed).standard_normal((out, k))
    found, plain = whitened_svd(weight, scale * np.eye(k)), svd(weight)
    np.testing.assert_allclose(found.values, plain.values * np.sqrt(scale), rtol=1e-6, atol=1e-7 * np.sqrt(scale))
    half = max(1, min(out, k) // 2)
    np.testing.assert_allclose(np.matmul(*found.split(half)), np.matmul(*plain.split(half)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_layer_that_reads_only_zeros_keeps_its_weight(shape):
    weight = np.random.default_rng(0).standard_normal(shape)
    found = whitened_svd(weight, np.zeros((shape[1], shape[1])))
    np.testing.assert_allclose(np.matmul(*found.split(4)), weight, rtol=1e-9, atol=1e-12)


def test_rank_errors_are_those_of_every_rank():
    np.testing.assert_allclose(rank_errors(np.array([3.0, 4.0, 0.0])), [1, 0.8, 0, 0], rtol=1e-15, atol=0)
    assert not rank_errors(np.zeros(3)).any()
    weight, metric = np.random.default_rng(0).standard_normal((8, 6)), metric_of(0, 6)
    found = whitened_svd(weight, metric)
    errors = rank_errors(found.values)
    rank = rank_by_energy(found.values, 0.9)
    assert errors[rank] <= np.sqrt(0.1) < errors[rank - 1]
    assert errors[0] == 1
    assert errors[-1] == 0


def test_takes_no_second_metric_in_memory_where_outputs_are_few():
    k = 2000
    metric = np.eye(k) + 1e-3
    weight = np.random.default_rng(0).standard_normal((64, k))
    tracemalloc.start()
    whitened_svd(weight, metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < metric.nbytes / 2


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w, h: (w[0], h), "expected a matrix"),
        (lambda w, h: (w[:0], h), "not empty"),
        (lambda w, h: (w * np.nan, h), "not finite"),
        (lambda w, h: (w, h[1:]), "has no metric of shape"),
        (lambda w, h: (w, h + np.inf), "the metric is not finite"),
    ],
)
def test_refuses(shape, change, reason):
    with pytest.raises(ValueError, match=reason):
        whitened_svd(*change(np.ones(shape), np.eye(shape[1])))


def test_refuses_a_metric_with_negative_directions():
    with pytest.raises(ValueError, match="negative eigenvalues"):
        whitened_svd(np.ones((3, 2)), np.diag([2.0, -1.0]))


@modest
@given(seed=seeds, out=sizes, k=sizes, narrow=st.booleans())
def test_a_diagonal_does_what_the_diagonal_matrix_does(seed, out, k, narrow):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((out, k)).astype(ml_dtypes.bfloat16 if narrow else np.float64)
    diagonal = np.exp(rng.standard_normal(k))
    found, wanted = whitened_svd(weight, diagonal), whitened_svd(weight, np.diag(diagonal))
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-5 * wanted.values[0])  # squares, jitter
    for rank in range(1, min(out, k) + 1):
        left, right = found.split(rank)
        told = float(np.linalg.norm(found.values[rank:]))
        assert lost(weight.astype(float), left @ right, np.diag(diagonal)) == pytest.approx(told, abs=1e-6)


@pytest.mark.parametrize(
    ("diagonal", "message"),
    [
        (np.ones(3), r"a weight \[2, 4\] has no diagonal of shape \[3\]"),
        (np.array([1.0, 1, 0, 1]), "the diagonal of the metric is not positive, or not finite"),
        (np.array([1.0, 1, np.inf, 1]), "the diagonal of the metric is not positive, or not finite"),
    ],
)
def test_refuses_a_diagonal_that_weighs_nothing(diagonal, message):
    with pytest.raises(ValueError, match=message):
        whitened_svd(np.ones((2, 4)), diagonal)
