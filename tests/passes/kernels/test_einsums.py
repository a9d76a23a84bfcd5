"""Einsum expressions of factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.einsums import Form, balance, contract, norms_along

modest = settings(deadline=None, derandomize=True, max_examples=40)

EXPRESSIONS = (
    "or,ri->oi",
    "or,rsyx,si->oiyx",
    "or,ryx,ri->oiyx",
    "or,yr,xr,ri->oiyx",
    "orx,riy->oiyx",
    "or,rxq,qys,si->oiyx",
    "ois,isyx->oiyx",
    "osi,osyx->oiyx",
    "oi,iyx->oiyx",
)


def factors_of(expression, seed, sizes):
    rng = np.random.default_rng(seed)
    operands = expression.split("->")[0].split(",")
    return [rng.standard_normal([sizes[ord(letter) % len(sizes)] for letter in letters]) for letters in operands]


some = {
    "expression": st.sampled_from(EXPRESSIONS),
    "seed": st.integers(0, 10_000),
    "sizes": st.lists(st.integers(1, 4), min_size=5, max_size=5),
}


@modest
@given(**some, which=st.integers(0, 3))
def test_the_adjoint_is_one(expression, seed, sizes, which):
    form, factors = Form.of(expression), factors_of(expression, seed, sizes)
    index = which % len(factors)
    rng = np.random.default_rng(seed + 1)
    other = rng.standard_normal(factors[index].shape)
    wide = form.dense([*factors[:index], other, *factors[index + 1 :]])
    given = rng.standard_normal(wide.shape)
    np.testing.assert_allclose(
        np.vdot(wide, given), np.vdot(other, form.adjoint(factors, index, given)), rtol=1e-10, atol=1e-10
    )


@modest
@given(**some)
def test_balancing_keeps_the_result_and_evens_the_norms(expression, seed, sizes):
    form, factors = Form.of(expression), factors_of(expression, seed, sizes)
    factors[0] = factors[0] * 1e6
    before = [each.copy() for each in factors]
    even = balance(form, factors)
    wide = form.dense(factors)
    np.testing.assert_allclose(form.dense(even), wide, rtol=1e-10, atol=1e-10 * np.abs(wide).max())
    assert all(np.array_equal(*pair) for pair in zip(before, factors, strict=True))
    if form.summed:
        norms = norms_along(form, even, form.summed[-1])  # the last to be evened
        np.testing.assert_allclose(norms, np.broadcast_to(norms[0], norms.shape), rtol=1e-9, atol=0)


def test_balancing_leaves_terms_that_are_zero_for_a_fit_to_use():
    form = Form.of("or,ri->oi")
    even = balance(form, [np.array([[1.0, 2.0]]), np.array([[4.0], [0.0]])])
    np.testing.assert_allclose(even[0], [[2.0, 2.0]], rtol=1e-15, atol=0)
    np.testing.assert_allclose(even[1], [[2.0], [0.0]], rtol=1e-15, atol=0)


def test_contracts_in_float64():
    third = np.full((1, 3), 1 / 3, np.float32)
    assert contract("or,or->", third, third).dtype == np.float64


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("or,ri", "is no expression"),
        ("or,r1->o1", "is no expression"),
        ("or,ri->", "is no expression"),
        ("oo,oi->oi", "has a letter twice in 'oo'"),
        ("or,ri->oo", "has a letter twice in 'oo'"),
        ("ort,ri->oi", "has 't' in one place only"),
        ("or,r->oi", "has 'i' in one place only"),
    ],
)
def test_refuses_expressions(expression, reason):
    with pytest.raises(ValueError, match=reason):
        Form.of(expression)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ([(2, 3)], "has 2 factors, got 1"),
        ([(2, 3), (3,)], "the factor 'ri' cannot have the shape"),
        ([(2, 3), (3, 0)], "the factor 'ri' cannot have the shape"),
        ([(2, 3), (4, 2)], "'r' of .* is 3 and 4 long"),
    ],
)
def test_refuses_shapes(shapes, reason):
    with pytest.raises(ValueError, match=reason):
        Form.of("or,ri->oi").sizes([np.ones(shape) for shape in shapes])


def test_refuses_values_that_are_not_finite():
    with pytest.raises(ValueError, match="the factor 'ri' is not finite"):
        Form.of("or,ri->oi").sizes([np.ones((2, 2)), np.full((2, 2), np.nan)])
