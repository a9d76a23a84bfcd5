import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import tensor
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.tensor import DegenerateError, channel_values, cp, tucker2

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)
channels = st.integers(1, 12)
spatial = st.lists(st.integers(1, 3), min_size=1, max_size=3)


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


@modest
@given(seed=seeds, out=channels, into=channels, kernel=st.lists(st.integers(1, 3), max_size=3))
def test_tucker_is_exact_at_full_rank(seed, out, into, kernel):
    weight = normal(seed, (out, into, *kernel)).astype(np.float32)
    found = tucker2(weight, (out, into))
    assert found.first.shape == (into, into)
    assert found.core.shape == weight.shape
    assert relative_error(weight, found.dense()) < 1e-12


@modest
@given(seed=seeds, r_out=st.integers(1, 4), r_in=st.integers(1, 4), kernel=spatial)
def test_tucker_recovers_a_kernel_of_its_ranks(seed, r_out, r_in, kernel):
    core = normal(seed, (r_out, r_in, *kernel))
    weight = np.einsum("or,rs...,si->oi...", normal(seed + 1, (9, r_out)), core, normal(seed + 2, (r_in, 7)))
    # half of float64's digits: the Gram matrix squares the condition
    assert relative_error(weight, tucker2(weight, (r_out, r_in)).dense()) < 1e-6


@pytest.mark.parametrize("ranks", [(4, 4), (2, 6), (6, 1)])
def test_tucker_is_not_worse_than_tensorly(ranks):
    import tensorly
    from tensorly.decomposition import partial_tucker

    weight = normal(0, (12, 10, 3, 3))
    (core, factors), _ = partial_tucker(weight, rank=list(ranks), modes=[0, 1], n_iter_max=100, tol=1e-6)
    peer = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    ours = relative_error(weight, tucker2(weight, ranks, iterations=100).dense())
    # both stop at a tolerance of about 1e-6
    assert ours <= relative_error(weight, peer) + 1e-4


def test_tucker_survives_more_ranks_than_the_kernel_has():
    weight = np.zeros((6, 5, 3, 3))
    weight[0, 0] = 1
    found = tucker2(weight, (4, 3))
    assert relative_error(weight, found.dense()) < 1e-12
    assert not tucker2(np.zeros((6, 5, 3, 3)), (4, 3)).dense().any()


def test_channel_values_are_those_of_the_unfoldings():
    weight = normal(1, (8, 6, 3, 3))
    for axis, values in enumerate(channel_values(weight)):
        direct = np.linalg.svd(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1), compute_uv=False)
        np.testing.assert_allclose(values, direct, rtol=1e-7, atol=1e-7)


@settings(modest, max_examples=15)
@given(seed=seeds, rank=st.integers(1, 3), kernel=spatial, scale=st.sampled_from([1e-20, 1.0, 1e20]))
def test_cp_approaches_a_kernel_of_its_rank(seed, rank, kernel, scale):
    rng = np.random.default_rng(seed)
    # orthonormal channels: well conditioned, so that least squares converge
    out, into = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (9, 7))
    sides = [rng.uniform(0.5, 1, (size, rank)) for size in kernel]
    weight = tensor.CP(into.T, tuple(sides), out).dense() * scale
    assert relative_error(weight, cp(weight, rank, iterations=500, tolerance=1e-9).dense()) < 0.02


def test_cp_has_the_shapes_of_its_layers():
    found = cp(normal(0, (5, 4, 3, 2)).astype(ml_dtypes.bfloat16), 6)
    assert found.first.shape == (6, 4)
    assert [factor.shape for factor in found.spatial] == [(3, 6), (2, 6)]
    assert found.last.shape == (5, 6)
    norms = [np.linalg.norm(factor, axis=0) for factor in (found.first.T, *found.spatial, found.last)]
    np.testing.assert_allclose(norms, np.broadcast_to(norms[0], (4, 6)), rtol=1e-12, atol=0)


def test_cp_is_the_same_for_the_same_seed_only():
    weight = normal(0, (5, 4, 3, 3))
    np.testing.assert_array_equal(cp(weight, 4, seed=1).last, cp(weight, 4, seed=1).last)
    assert not np.array_equal(cp(weight, 4, seed=1).last, cp(weight, 4, seed=2).last)


def test_cp_is_not_worse_than_tensorly():
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    weight = normal(3, (12, 10, 3, 3))
    peer = min(
        relative_error(weight, cp_to_tensor(parafac(weight, 8, init="random", random_state=seed))) for seed in range(3)
    )
    ours = min(relative_error(weight, cp(weight, 8, seed=seed).dense()) for seed in range(3))
    # the starts differ, and so do the local optima
    assert ours <= peer + 0.01


def test_cp_of_rank_beyond_need_is_solved():
    weight = np.einsum("i,j,k->ijk", *(normal(seed, size) for seed, size in enumerate((6, 5, 3))))
    assert relative_error(weight, cp(weight, 8).dense()) < 1e-3
    assert not cp(np.zeros((3, 2, 2)), 2).dense().any()


def test_refuses_a_degenerate_cp(monkeypatch):
    # border rank 2, rank 3: two terms approach it without end, growing and cancelling (de Silva and Lim, 2008)
    a, b = np.eye(2)
    weight = sum(np.einsum("i,j,k->ijk", *term) for term in ((a, a, b), (a, b, a), (b, a, a)))
    monkeypatch.setattr(tensor, "_EXPLODED", 3.0)
    with pytest.raises(DegenerateError, match="lower the rank"):
        cp(weight, 2, iterations=2000, tolerance=1e-12)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda w: tucker2(w, (5, 1)), r"output rank must lie in 1\.\.4"),
        (lambda w: tucker2(w, (1, 0)), r"input rank must lie in 1\.\.3"),
        (lambda w: tucker2(w[0, 0, 0], (1, 1)), "expected a kernel"),
        (lambda w: tucker2(w * np.nan, (1, 1)), "not finite"),
        (lambda w: tucker2(w, (1, 1), iterations=0), "iterations must be"),
        (lambda w: cp(w, 1, iterations=0), "iterations must be"),
        (lambda w: cp(w, 0), "rank must be at least 1"),
        (lambda w: cp(w[:, :, 0, 0], 2), "with a kernel axis"),
        (lambda w: cp(w * np.inf, 2), "not finite"),
        (lambda w: channel_values(w[:0]), "not empty"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call(np.ones((4, 3, 2, 2)))
