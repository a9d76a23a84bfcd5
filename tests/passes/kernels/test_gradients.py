"""One factor of an einsum by conjugate gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.einsums import Form
from onnxpress.passes.kernels.gradients import descend

modest = settings(deadline=None, derandomize=True, max_examples=40)
SIZES = {"o": 4, "i": 3, "y": 2, "x": 3, "r": 2, "s": 3, "q": 2}
CASES = [
    (expression, index)
    for expression in (
        "or,rsyx,si->oiyx",
        "or,ryx,ri->oiyx",
        "orx,riy->oiyx",
        "or,rxq,qys,si->oiyx",
        "ois,isyx->oiyx",
        "osi,osyx->oiyx",
        "oi,iyx->oiyx",
    )
    for index in range(expression.count(",") + 1)
]


def problem(expression, seed, rows):
    rng = np.random.default_rng(seed)
    form = Form.of(expression)
    factors = [rng.standard_normal([SIZES[letter] for letter in letters]) for letters in form.operands]
    inputs = rng.standard_normal((rows, 18)) * np.exp(rng.standard_normal(18))
    return form, factors, rng.standard_normal((4, 18)), inputs.T @ inputs


def loss(form, factors, target, metric):
    lost = form.dense(factors).reshape(target.shape) - target
    return float(np.einsum("ok,kl,ol->", lost, metric, lost))


def least(form, factors, index, target, metric):
    """The least loss over one factor, by a dense design matrix."""
    shape = factors[index].shape
    units = np.eye(factors[index].size).reshape(-1, *shape)
    design = np.stack(
        [form.dense([*factors[:index], unit, *factors[index + 1 :]]).reshape(target.shape) for unit in units]
    )
    values, axes = np.linalg.eigh(metric)
    root = axes * np.sqrt(np.maximum(values, 0))
    seen, wanted = (design @ root).reshape(len(design), -1), (target @ root).reshape(-1)
    return float(np.square(np.linalg.lstsq(seen.T, wanted, rcond=1e-10)[0] @ seen - wanted).sum())


@modest
@given(case=st.sampled_from(CASES), seed=st.integers(0, 10_000), rows=st.integers(1, 60), identity=st.booleans())
def test_finds_the_best_factor_whatever_the_metric(case, seed, rows, identity):
    form, factors, target, metric = problem(case[0], seed, rows)
    metric = np.eye(18) if identity else metric
    best = least(form, factors, case[1], target, metric)
    found = descend(form, factors, case[1], target, None if identity else metric, iterations=300)
    after = loss(form, [*factors[: case[1]], found, *factors[case[1] + 1 :]], target, metric)
    # it rests at a ten-thousandth of the first gradient
    assert after <= best * (1 + 1e-3) + 1e-4 * loss(form, factors, target, metric)


@modest
@given(case=st.sampled_from(CASES), seed=st.integers(0, 10_000), rows=st.integers(1, 60))
def test_each_iteration_lowers_the_loss(case, seed, rows):
    form, factors, target, metric = problem(case[0], seed, rows)
    before = start = loss(form, factors, target, metric)
    for iterations in (1, 2, 4, 8):
        found = descend(form, factors, case[1], target, metric, iterations=iterations)
        after = loss(form, [*factors[: case[1]], found, *factors[case[1] + 1 :]], target, metric)
        assert after <= before + 1e-9 * start
        before = after


@pytest.mark.parametrize(("expression", "index"), [("orx,riy->oiyx", 1), ("ois,isyx->oiyx", 1), ("or,ryx,ri->oiyx", 2)])
def test_one_iteration_suffices_without_a_metric_where_one_letter_is_summed(expression, index):
    form, factors, target, _ = problem(expression, 0, 1)
    found = descend(form, factors, index, target, None, iterations=1)
    after = loss(form, [*factors[:index], found, *factors[index + 1 :]], target, np.eye(18))
    # the preconditioner has a floor of a millionth
    np.testing.assert_allclose(after, least(form, factors, index, target, np.eye(18)), rtol=1e-5, atol=0)


def test_leaves_a_factor_that_nothing_depends_on():
    form, factors, target, metric = problem("orx,riy->oiyx", 0, 20)
    factors[0] = np.zeros_like(factors[0])
    np.testing.assert_array_equal(descend(form, factors, 1, target, metric), factors[1])
    np.testing.assert_array_equal(descend(form, factors, 1, target, np.zeros((18, 18))), factors[1])
