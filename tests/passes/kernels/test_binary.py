"""Sums of signs: what each form minimises, and that nothing does better."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxpress.passes.kernels.binary import binary, fit_scales, in_scales, pooled, residual_binary, ternary
from onnxpress.passes.kernels.least_squares import error, solve
from onnxpress.passes.kernels.normal import Normal

FEW = settings(deadline=None, derandomize=True, max_examples=40)
VALUES = st.floats(-4, 4, width=32)
ROWS = arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=VALUES)


def coded(rows, book):
    return book.values(book.choose(rows))


def lost(rows, values, importance=1.0):
    return (importance * (rows - values) ** 2).sum(axis=1)


def importance_of(rows):
    return np.random.default_rng(rows.size).uniform(0.1, 3, rows.shape)


@FEW
@given(ROWS)
def test_one_scale_of_the_signs_is_the_best(rows):
    weight = importance_of(rows)
    found = lost(rows, coded(rows, binary(rows, weight)), weight)
    scale = (weight * np.abs(rows)).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, lost(rows, np.where(rows >= 0, scale, -scale), weight), rtol=1e-9, atol=1e-9)
    for factor in (0.9, 1.1):
        assert (found <= lost(rows, np.where(rows >= 0, factor * scale, -factor * scale), weight) + 1e-9).all()


@settings(FEW, max_examples=15)
@given(ROWS, st.booleans())
def test_no_threshold_is_better_than_that_of_ternary(rows, symmetric):
    weight = importance_of(rows)
    found = lost(rows, coded(rows, ternary(rows, weight, symmetric=symmetric)), weight)
    for row, h, least in zip(rows, weight, found, strict=True):
        for codes in itertools.product((-1, 0, 1), repeat=row.size):
            signs = np.array(codes, float)
            if not symmetric and (signs * row < 0).any():
                continue  # a level of either sign is for weights of that sign
            parts = [signs[:, None]] if symmetric else [np.stack([signs > 0, signs < 0], axis=1).astype(float)]
            root = np.sqrt(h)
            scales = np.linalg.lstsq(root[:, None] * parts[0], root * row, rcond=None)[0]
            assert least <= (h * (row - parts[0] @ scales) ** 2).sum() + 1e-7


@FEW
@given(ROWS)
def test_more_sums_lose_less(rows):
    errors = [lost(rows, coded(rows, residual_binary(rows, bits))) for bits in (1, 2, 3)]
    assert (errors[1] <= errors[0] + 1e-9).all()
    assert (errors[2] <= errors[0] + 1e-9).all()


def test_sums_of_a_normal_distribution_lose_as_little_as_is_known(random):
    """Best levels of 1 bit lose 1 − 2/π of the energy; of 2 bits, even without symmetry, 0.1175 (Max, 1960)."""
    rows = random.standard_normal((1, 200_000))
    one, two = (float(lost(rows, coded(rows, residual_binary(rows, bits)))[0] / (rows**2).sum()) for bits in (1, 2))
    assert one == pytest.approx(1 - 2 / np.pi, rel=0.01)
    assert two == pytest.approx(0.1175, rel=0.01)


@FEW
@given(ROWS, st.integers(1, 3))
def test_what_is_a_sum_stays_itself(rows, bits):
    once = coded(rows, residual_binary(rows, bits))
    again = coded(once, residual_binary(once, bits))
    assert (lost(once, again) <= lost(rows, once) + 1e-9).all()
    np.testing.assert_allclose(coded(once, binary(once)) if bits == 1 else once, once, rtol=1e-9, atol=1e-9)


def test_zeros_stay_where_they_are_kept(random):
    rows = random.standard_normal((4, 50)) * (random.random((4, 50)) < 0.5)
    book = residual_binary(rows, 2, keep_zero=True)
    np.testing.assert_array_equal(coded(rows, book) == 0, rows == 0)
    assert max(np.unique(row).size for row in coded(rows, book)) == 5
    dense = [row[row != 0][None] for row in rows]
    alone = [lost(row, coded(row, residual_binary(row, 2)))[0] for row in dense]
    np.testing.assert_allclose(lost(rows, coded(rows, book)), alone, rtol=1e-9)


def test_rows_of_zeros_and_weights_that_count_for_nothing_do_no_harm():
    rows = np.array([[0.0, 0, 0], [1, -2, 3]])
    book = binary(rows, np.zeros(3), keep_zero=True)
    np.testing.assert_allclose(coded(rows, book), [[0, 0, 0], [2, -2, 2]])


@pytest.mark.parametrize("form", [binary, ternary, lambda rows: residual_binary(rows, 2)])
def test_refuses_what_is_not_finite(form):
    with pytest.raises(ValueError, match="not finite"):
        form(np.array([[1.0, np.nan]]))


@pytest.mark.parametrize("groups", [1, 2])
def test_equations_in_scales_give_the_error_of_the_layer(correlated, groups):
    weight, normal = correlated(groups)
    book = residual_binary(weight, 2)
    chosen = book.choose(weight)
    parts = in_scales(normal, chosen, book.combinations)
    assert error(parts, book.scales) == pytest.approx(error(normal, book.values(chosen)), rel=1e-6)
    scales, _ = fit_scales(parts, book.scales, ridge=1e-9)
    assert error(parts, scales) < error(parts, book.scales)


def test_pooled_equations_solve_for_the_intercepts_of_rows(random):
    """Against a plain least-squares problem of all rows."""
    inputs, k, rows = random.standard_normal((1, 300, 10)) + 1, 10, 3
    weight = random.standard_normal((rows, k))
    outputs = inputs @ weight.T + random.standard_normal(rows)
    normal, book = Normal.of(inputs, outputs), residual_binary(weight.reshape(1, -1), 2)
    chosen = book.choose(weight)
    parts = in_scales(normal, chosen, book.combinations)
    scales, _ = fit_scales(pooled(parts, bias=True), book.scales, ridge=1e-12)
    read = np.concatenate([inputs[0] @ book.combinations[chosen[row]] for row in range(rows)])
    design = np.concatenate([read, np.kron(np.eye(rows), np.ones((300, 1)))], axis=1)
    best = np.linalg.lstsq(design, outputs[0].T.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(scales[0], best[:2], rtol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_scales_are_those_of_the_general_solver(correlated, bias):
    weight, normal = correlated(groups=2)
    book = residual_binary(weight, 2)
    parts = in_scales(normal, book.choose(weight), book.combinations)
    found, expected = (form(parts, book.scales, ridge=0.03, bias=bias) for form in (fit_scales, solve))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-8, atol=1e-10)
    if bias:
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-8, atol=1e-9)


def test_scales_of_rows_that_no_sample_reaches_stay():
    nothing, book = Normal.of(np.zeros((1, 9, 4)), np.zeros((1, 9, 2))), binary(np.array([[1.0, 2, 3, 4]] * 2))
    parts = in_scales(nothing, book.choose(np.ones((2, 4))), book.combinations)
    np.testing.assert_array_equal(fit_scales(parts, book.scales, ridge=0.1, bias=True)[0], book.scales)
