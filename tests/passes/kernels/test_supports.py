"""Systems of equations of second moments, whole and in parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import supports
from onnxpress.passes.kernels.supports import solve_dense, solve_supports


def moment(draw, k, *, rank=None, spread=1.0):
    rows = draw.standard_normal((4 * k, rank or k)) @ draw.standard_normal((rank or k, k))
    rows *= np.exp(spread * draw.standard_normal(k))
    return rows.T @ rows / len(rows)


def wanted(matrix, right, mask, damping):
    """Each row by itself."""
    found = np.zeros(right.shape)
    for row, support in enumerate(mask):
        part = matrix[np.ix_(support, support)] + damping * np.eye(np.count_nonzero(support))
        found[row, support] = np.linalg.solve(part, right[row, support])
    return found


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 99), st.sampled_from([1e-3, 0.1, 10.0]))
def test_dense_is_the_solution(k, rows, seed, damping):
    draw = np.random.default_rng(seed)
    matrix, right = moment(draw, k), draw.standard_normal((rows, k))
    kept = matrix.copy(), right.copy()
    found = solve_dense(matrix, right, damping=damping)
    assert found.shape == (rows, k)
    assert found.flags.c_contiguous
    # the left side has rounding of its entries, which grow with the condition, of 1e8 at most
    np.testing.assert_allclose(found @ (matrix + damping * np.eye(k)), right, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(matrix, kept[0])
    np.testing.assert_array_equal(right, kept[1])


@pytest.mark.parametrize("effort", [1e9, 0.0], ids=["factors", "gradients"])
@settings(max_examples=30)
@given(k=st.integers(1, 40), rows=st.integers(1, 6), seed=st.integers(0, 99), density=st.floats(0, 1))
def test_supports_are_solved_row_by_row(effort, k, rows, seed, density):
    draw = np.random.default_rng(seed)
    matrix, right = moment(draw, k, spread=0.5), draw.standard_normal((rows, k))
    mask = draw.random((rows, k)) < density
    damping = 1e-2 * float(np.trace(matrix)) / k
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supports, "_EFFORT", effort)
        patch.setattr(supports, "_SMALL", 0)
        found = solve_supports(matrix, right, mask, damping=damping)
    assert not found[~mask].any()
    exact = wanted(matrix, right, mask, damping)
    # gradients leave 1e-6 of the right side, times a condition of at most some hundreds
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-3 * max(1e-9, np.abs(exact).max(initial=0)))


def test_many_rows_of_large_supports_go_by_gradients(monkeypatch):
    draw = np.random.default_rng(3)
    k = 60
    matrix, right = moment(draw, k, spread=1.0), draw.standard_normal((50, k))
    mask = draw.random((50, k)) < 0.9
    damping = 1e-3 * float(np.trace(matrix)) / k
    rounds = []
    gradients = supports._gradients
    monkeypatch.setattr(supports, "_gradients", lambda *each: rounds.append(1) or gradients(*each))
    monkeypatch.setattr(supports, "_SMALL", 0)
    monkeypatch.setattr(supports, "_GATHER", 1e6)
    found = solve_supports(matrix, right, mask, damping=damping)
    assert rounds
    # 1e-6 of the right side at a condition of about 1e4
    np.testing.assert_allclose(found, wanted(matrix, right, mask, damping), rtol=1e-2, atol=1e-3 * np.abs(found).max())


def test_rows_of_one_support_are_factored_once(monkeypatch):
    calls = []
    dense = supports.solve_dense
    monkeypatch.setattr(supports, "solve_dense", lambda *each, **more: calls.append(1) or dense(*each, **more))
    draw = np.random.default_rng(0)
    matrix, right = moment(draw, 6), draw.standard_normal((30, 6))
    mask = np.zeros((30, 6), np.bool_)
    mask[:10, :3] = mask[10:, 2:] = True
    found = solve_supports(matrix, right, mask, damping=0.1)
    assert len(calls) == 2
    np.testing.assert_allclose(found, wanted(matrix, right, mask, 0.1), rtol=1e-9, atol=1e-12)


def test_singular_matrices_are_damped_as_little_as_it_takes():
    draw = np.random.default_rng(0)
    matrix = moment(draw, 12, rank=3, spread=0.0)
    inside = draw.standard_normal((4, 12)) @ matrix  # what a singular matrix can give
    found = solve_dense(matrix, inside)
    np.testing.assert_allclose(found @ matrix, inside, rtol=1e-4, atol=1e-6)


def test_refuses_what_is_no_second_moment():
    for matrix in (-np.eye(3), np.full((3, 3), np.nan), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="second moment is not one"):
            solve_dense(matrix, np.ones((1, 3)))
