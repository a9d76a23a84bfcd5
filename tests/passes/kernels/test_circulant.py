import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.circulant import dense, fit


def metric_of(size: int, random: np.random.Generator) -> np.ndarray:
    rows = random.standard_normal((3 * size, size)) * np.exp(random.standard_normal(size))
    return rows.T @ rows


def test_each_entry_is_told_by_its_first_column():
    columns = np.random.default_rng(0).standard_normal((2, 3, 4))
    found = dense(columns, (8, 12))
    for row in range(8):
        for column in range(12):
            assert found[row, column] == columns[row // 4, column // 4, (row % 4 - column % 4) % 4]


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    block=st.integers(1, 6),
    weighed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nothing_of_its_kind_is_nearer(shape, block, weighed, seed):
    random = np.random.default_rng(seed)
    target, metric = random.standard_normal(shape), metric_of(shape[1], random)
    root = np.linalg.cholesky(metric) if weighed else np.eye(shape[1])
    found = fit(target, block, metric=metric if weighed else None)
    # the same problem as one of ordinary least squares, a column for each parameter
    every = np.eye(found.size).reshape(-1, *found.shape)
    columns = np.stack([(dense(each, shape) @ root).ravel() for each in every], axis=1)
    wanted = (target @ root).ravel()
    least = np.linalg.norm(columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0] - wanted)
    off = np.linalg.norm((dense(found, shape) - target) @ root)
    assert off <= least + 1e-6 * np.linalg.norm(wanted)  # squared condition of normal equations


@given(block=st.integers(1, 5), seed=st.integers(0, 20))
def test_is_exact_for_circulant_blocks(block, seed):
    random = np.random.default_rng(seed)
    columns = random.standard_normal((2, 3, block))
    target = dense(columns, (2 * block, 3 * block))
    np.testing.assert_allclose(fit(target, block), columns, rtol=1e-12, atol=1e-12)  # rounding of sums
    found = fit(target, block, metric=metric_of(3 * block, random))
    np.testing.assert_allclose(found, columns, rtol=1e-5, atol=1e-5)  # condition of the metric times its jitter


def test_inputs_that_are_always_zero_do_no_harm():
    target = np.random.default_rng(0).standard_normal((4, 6))
    found = fit(target, 2, metric=np.diag([1.0, 1, 0, 0, 0, 0]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(dense(found, (4, 6))[:, :2], dense(fit(target[:, :2], 2), (4, 2)), rtol=1e-6, atol=1e-6)


def test_refuses_what_does_not_fit():
    target = np.ones((3, 4))
    with pytest.raises(ValueError, match="do not belong"):
        fit(target, 0)
    with pytest.raises(ValueError, match="do not belong"):
        fit(target, 2, metric=np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        fit(np.full((3, 4), np.nan), 2)
