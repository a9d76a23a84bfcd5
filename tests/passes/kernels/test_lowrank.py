import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lowrank import rank_by_energy, spatial_factors, spatial_matrix, svd

modest = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 24)
dtypes = st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64])


def normal(seed, shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def spatial_dense(vertical, horizontal):
    return np.einsum("riy,orx->oiyx", vertical[..., 0], horizontal[:, :, 0])


@modest
@given(seed=seeds, out=sizes, channels=sizes, dtype=dtypes, deficient=st.booleans())
def test_full_rank_is_exact(seed, out, channels, dtype, deficient):
    matrix = normal(seed, (out, channels), dtype)
    if deficient:
        matrix[:, channels // 2 :] = matrix[:, :1]
    left, right = svd(matrix).split(min(out, channels))
    assert relative_error(matrix, left @ right) < 1e-12


@modest
@given(seed=seeds, out=sizes, channels=sizes, scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_truncation_is_as_good_as_the_direct_decomposition(seed, out, channels, scale):
    matrix = normal(seed, (out, channels)) * scale
    found, values = svd(matrix), np.linalg.svd(matrix, compute_uv=False)
    # the Gram matrix squares the condition: half of float64's digits
    np.testing.assert_allclose(found.values, values, rtol=1e-7, atol=1e-7 * values[0])
    for rank in range(1, values.size + 1):
        left, right = found.split(rank)
        best = np.sqrt(np.sum(values[rank:] ** 2) / np.sum(values**2))
        np.testing.assert_allclose(relative_error(matrix, left @ right), best, rtol=1e-7, atol=1e-7)


@modest
@given(seed=seeds, out=sizes, channels=sizes, rank=st.integers(1, 24))
def test_factors_of_a_product_recover_it_and_are_balanced(seed, out, channels, rank):
    rank = min(rank, out, channels)
    matrix = normal(seed, (out, rank)) @ normal(seed + 1, (rank, channels))
    left, right = svd(matrix).split(rank)
    assert relative_error(matrix, left @ right) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1), rtol=1e-6, atol=1e-12)


def test_spans_strips(monkeypatch):
    matrix = normal(0, (50, 7), np.float32)
    whole = svd(matrix).values
    monkeypatch.setattr("onnxpress.passes.kernels.lowrank.PIECE", 30)
    np.testing.assert_allclose(svd(matrix).values, whole, rtol=1e-12, atol=0)


@modest
@given(seed=seeds, out=sizes, channels=st.integers(1, 6), height=st.integers(1, 5), width=st.integers(1, 5))
def test_spatial_pair_is_exact_at_full_rank_and_optimal_below(seed, out, channels, height, width):
    kernel = normal(seed, (out, channels, height, width))
    found, full = svd(spatial_matrix(kernel)), min(out * width, channels * height)
    vertical, horizontal = spatial_factors(*found.split(full), kernel.shape)
    assert vertical.shape == (full, channels, height, 1)
    assert horizontal.shape == (out, full, 1, width)
    assert relative_error(kernel, spatial_dense(vertical, horizontal)) < 1e-12
    half = max(1, full // 2)
    lost = relative_error(kernel, spatial_dense(*spatial_factors(*found.split(half), kernel.shape)))
    # an element of the matrix is one of the kernel, so the least error of the one is that of the other
    values = np.linalg.svd(spatial_matrix(kernel), compute_uv=False)
    np.testing.assert_allclose(lost, np.sqrt(np.sum(values[half:] ** 2) / np.sum(values**2)), rtol=1e-7, atol=1e-7)


def test_nothing_but_zeros_factorizes_into_zeros():
    left, right = svd(np.zeros((3, 2), np.float32)).split(1)
    assert not left.any()
    assert not right.any()


@modest
@given(seed=seeds, count=st.integers(1, 20), energy=st.floats(0.01, 1))
def test_rank_by_energy_is_the_smallest_that_holds_it(seed, count, energy):
    values = np.sort(np.abs(normal(seed, count)))[::-1]
    rank = rank_by_energy(values, energy)
    total = np.sum(values**2)
    # float64 sums of 20 squares
    assert np.sum(values[:rank] ** 2) >= energy * total * (1 - 1e-12)
    assert rank == 1 or np.sum(values[: rank - 1] ** 2) < energy * total * (1 + 1e-12)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: svd(np.zeros(3)), "expected a matrix"),
        (lambda: svd(np.zeros((0, 3))), "not empty"),
        (lambda: svd(np.array([[1, np.nan]])), "not finite"),
        (lambda: svd(np.ones((3, 2))).split(3), r"rank must lie in 1\.\.2"),
        (lambda: svd(np.ones((3, 2))).split(0), r"rank must lie in 1\.\.2"),
        (lambda: spatial_matrix(np.ones((3, 2))), "kh, kw"),
        (lambda: rank_by_energy(np.ones(3), 0.0), "energy must lie"),
        (lambda: rank_by_energy(np.ones(3), 1.5), "energy must lie"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
