import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.displacement import Displaced, displacement, fit


def squares(off: np.ndarray, metric: np.ndarray | None) -> float:
    return float(np.vdot(off if metric is None else off @ metric, off))


def test_a_term_is_a_circulant_times_a_skew_circulant():
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 5))
    signs = np.where(np.arange(5)[:, np.newaxis] < np.arange(5), -1, 1)
    wanted = scipy.linalg.circulant(first) @ (scipy.linalg.circulant(second) * signs)
    found = Displaced(first[np.newaxis], second[np.newaxis], 5).dense()
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)  # rounding of transforms


@given(size=st.integers(2, 9), terms=st.integers(1, 3), seed=st.integers(0, 50))
def test_so_many_terms_have_that_displacement_rank(size, terms, seed):
    random = np.random.default_rng(seed)
    found = Displaced(*random.standard_normal((2, terms, size)), size).dense()
    assert np.linalg.matrix_rank(displacement(found), tol=1e-9) <= terms


@given(size=st.integers(2, 12), seed=st.integers(0, 20))
def test_full_rank_and_toeplitz_matrices_are_exact(size, seed):
    random = np.random.default_rng(seed)
    for target, rank in (
        (random.standard_normal((size, size)), size),
        (scipy.linalg.toeplitz(*random.standard_normal((2, size))), 2),
    ):
        np.testing.assert_allclose(fit(target, rank).dense(), target, rtol=1e-8, atol=1e-8)  # condition of the start


@given(
    rows=st.integers(1, 8),
    more=st.integers(0, 4),
    rank=st.integers(1, 3),
    weighed=st.booleans(),
    seed=st.integers(0, 50),
)
def test_more_sweeps_do_no_harm_and_zero_is_worse(rows, more, rank, weighed, seed):
    random, size = np.random.default_rng(seed), rows + more
    target = random.standard_normal((rows, size))
    seen = random.standard_normal((2 * size, size))
    metric = seen.T @ seen if weighed else None
    rank = min(rank, size)
    lost = [squares(fit(target, rank, metric=metric, sweeps=count).dense() - target, metric) for count in (1, 2, 4)]
    whole = squares(target, metric)
    assert lost[0] >= lost[1] - 1e-9 * whole >= lost[2] - 2e-9 * whole
    assert lost[2] <= whole * (1 + 1e-9)


def test_refuses_what_does_not_fit():
    target = np.ones((3, 4))
    for rank, metric in ((0, None), (5, None), (1, np.eye(3))):
        with pytest.raises(ValueError, match="do not belong"):
            fit(target, rank, metric=metric)
    with pytest.raises(ValueError, match="do not belong"):
        fit(np.ones((4, 3)), 1)
    with pytest.raises(ValueError, match="not finite"):
        fit(np.full((3, 4), np.inf), 1)
