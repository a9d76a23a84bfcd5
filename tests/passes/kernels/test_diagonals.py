import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.diagonals import Map, fit, product
from onnxpress.passes.kernels.transforms import cosine


def of(matrix: np.ndarray) -> Map:
    return Map(lambda rows: rows @ matrix, lambda rows: rows @ matrix.T)


def test_a_product_is_that_of_its_matrices():
    random = np.random.default_rng(0)
    matrices = [random.standard_normal(shape) for shape in ((3, 5), (5, 5), (5, 4))]
    diagonals = random.standard_normal((2, 5))
    wanted = matrices[0] @ np.diag(diagonals[0]) @ matrices[1] @ np.diag(diagonals[1]) @ matrices[2]
    found = product([of(each) for each in matrices], list(diagonals), 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)  # rounding of sums


@given(out=st.integers(1, 6), size=st.integers(1, 6), weighed=st.booleans(), seed=st.integers(0, 50))
def test_one_diagonal_is_found_exactly(out, size, weighed, seed):
    random = np.random.default_rng(seed)
    left, right = random.standard_normal((out, size)), random.standard_normal((size, 5))
    target, seen = random.standard_normal((out, 5)), random.standard_normal((20, 5))
    metric = seen.T @ seen if weighed else None
    root = np.linalg.cholesky(metric) if metric is not None else np.eye(5)
    (found,) = fit([of(left), of(right)], [np.ones(size)], target, metric=metric)
    columns = np.stack([np.outer(left[:, k], right[k] @ root).ravel() for k in range(size)], axis=1)
    wanted = (target @ root).ravel()
    least = np.linalg.norm(columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0] - wanted)
    off = np.linalg.norm((product([of(left), of(right)], [found], out) - target) @ root)
    assert off <= least + 1e-5 * np.linalg.norm(wanted)  # squared condition of normal equations


@given(layers=st.integers(1, 3), seed=st.integers(0, 30))
def test_sweeps_never_do_harm(layers, seed):
    random, size = np.random.default_rng(seed), 6
    target, seen = random.standard_normal((4, size)), random.standard_normal((20, size))
    maps = [Map.cut(size, 4).reversed(), *[cosine().reversed(), cosine()] * layers]
    start = [1 + 0.1 * random.standard_normal(size) for _ in range(2 * layers)]
    metric, lost = seen.T @ seen, []
    for sweeps in (0, 1, 3):
        off = product(maps, fit(maps, start, target, metric=metric, sweeps=sweeps), 4) - target
        lost.append(float(np.vdot(off @ metric, off)))
    assert lost[0] >= lost[1] * (1 - 1e-9) >= lost[2] * (1 - 2e-9)


def test_nothing_comes_of_zeros():
    (first, second) = fit([of(np.eye(3))] * 3, [np.zeros(3), np.zeros(3)], np.eye(3))
    assert not first.any()
    assert not second.any()


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="does not belong"):
        fit([of(np.eye(3))] * 2, [np.ones(3)], np.eye(3), metric=np.eye(2))
    with pytest.raises(ValueError, match="not finite"):
        fit([of(np.eye(3))] * 2, [np.ones(3)], np.full((3, 3), np.nan))
