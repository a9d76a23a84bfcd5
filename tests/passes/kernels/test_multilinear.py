"""Factors fitted to a layer's outputs by alternating least squares."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import multilinear
from onnxpress.passes.kernels.multilinear import balanced, dense, fit
from onnxpress.passes.kernels.tensor import DegenerateError
from onnxpress.passes.kernels.whitened import rank_errors, whitened_svd

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)
SIZES = {"o": 5, "i": 4, "y": 2, "x": 3}
EXPRESSIONS = (
    "or,riyx->oiyx",
    "or,rsyx,si->oiyx",
    "or,ryx,ri->oiyx",
    "or,yr,xr,ri->oiyx",
    "orx,riy->oiyx",
    "or,rxq,qys,si->oiyx",
    "ois,isyx->oiyx",
    "osi,osyx->oiyx",
    "oi,iyx->oiyx",
)
expressions = st.sampled_from(EXPRESSIONS)


def start_of(expression, seed, ranks=3):
    rng = np.random.default_rng(seed)
    operands = expression.split("->")[0].split(",")
    return [rng.standard_normal([SIZES.get(letter, ranks) for letter in letters]) for letters in operands]


def problem(seed, rows=80, k=24):
    """A target and second moments of correlated rows, singular where there are fewer than k."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((rows, k)) @ rng.standard_normal((k, k)) * np.exp(rng.standard_normal(k))
    return rng.standard_normal((5, k)), inputs.T @ inputs


def relative(expression, factors, target, metric):
    lost = dense(expression, factors).reshape(target.shape) - target
    return float(np.sqrt(np.einsum("ok,kl,ol->", lost, metric, lost) / np.einsum("ok,kl,ol->", target, metric, target)))


@modest
@given(expression=expressions, seed=seeds, rows=st.integers(1, 80), plain=st.booleans())
def test_never_ends_worse_than_it_starts(expression, seed, rows, plain):
    target, metric = problem(seed, rows)
    metric = None if plain else metric
    start = start_of(expression, seed, 2)
    copies = [each.copy() for each in start]
    errors = [fit(expression, start, target, metric, sweeps=sweeps, tolerance=0)[1] for sweeps in (0, 1, 2, 4)]
    assert all(after <= before for before, after in pairwise(errors))
    assert all(np.array_equal(*pair) for pair in zip(copies, start, strict=True))
    np.testing.assert_allclose(
        errors[0], relative(expression, start, target, np.eye(24) if plain else metric), rtol=1e-9, atol=0
    )


@modest
@given(expression=expressions, seed=seeds)
def test_reports_the_error_of_what_it_returns_and_repeats_itself(expression, seed):
    target, metric = problem(seed)
    start = start_of(expression, seed, 2)
    found, error = fit(expression, start, target, metric, sweeps=3)
    again, same = fit(expression, start, target.reshape(5, 4, 2, 3), metric, sweeps=3)
    assert error == same
    assert all(np.array_equal(*pair) for pair in zip(found, again, strict=True))
    np.testing.assert_allclose(error, relative(expression, found, target, metric), rtol=1e-9, atol=1e-12)


@settings(modest, max_examples=12)
@given(seed=seeds, rank=st.integers(1, 5), rows=st.integers(6, 80))
def test_approaches_the_optimum_where_that_is_known(seed, rank, rows):
    target, metric = problem(seed, rows)
    best = rank_errors(whitened_svd(target, metric).values)[rank]
    _, error = fit("or,riyx->oiyx", start_of("or,riyx->oiyx", seed, rank), target, metric, sweeps=300, tolerance=1e-9)
    assert best <= error + 1e-6
    assert error <= best * 1.01 + 1e-4


@settings(modest, max_examples=15)
@given(expression=expressions, seed=seeds)
def test_recovers_the_outputs_of_its_own_factors_from_nearby(expression, seed):
    truth = start_of(expression, seed, 2)
    target = dense(expression, truth)
    _, metric = problem(seed)
    rng = np.random.default_rng(seed + 1)
    near = [each + 0.05 * rng.standard_normal(each.shape) for each in truth]
    before = fit(expression, near, target, metric, sweeps=0)[1]
    assert fit(expression, near, target, metric, sweeps=60, tolerance=1e-6)[1] < max(0.1 * before, 1e-6)


def grown(expression, factors, seed):
    """The same kernel by factors of one rank more: what is new is zero in the first factor that has it."""
    rng, seen, found = np.random.default_rng(seed), set(SIZES), []
    for letters, factor in zip(expression.split("->")[0].split(","), factors, strict=True):
        wide = rng.standard_normal(
            [size + (letter not in SIZES) for size, letter in zip(factor.shape, letters, strict=True)]
        )
        for axis, letter in enumerate(letters):
            if letter not in seen:
                np.moveaxis(wide, axis, 0)[-1] = 0
        wide[tuple(slice(size) for size in factor.shape)] = factor
        seen |= set(letters)
        found.append(wide)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS[:-1])
def test_a_rank_more_is_not_worse_from_the_factors_of_the_one_below(expression):
    target, metric = problem(3)
    found, errors = start_of(expression, 3, 1), []
    for rank in range(4):
        found, error = fit(expression, found, target, metric, sweeps=8)
        errors.append(error)
        found = grown(expression, found, rank)
    assert all(after <= before + 1e-6 for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_sweep_goes_through_all_factors(expression):
    target, metric = problem(0)
    start = balanced(expression, start_of(expression, 0, 2))
    found, _ = fit(expression, start, target, metric, sweeps=1)
    assert all(not np.allclose(*pair) for pair in zip(start, found, strict=True))


@modest
@given(expression=expressions, seed=seeds, scale=st.sampled_from([1e-20, 1e-3, 1e20]))
def test_scale_changes_nothing(expression, seed, scale):
    target, metric = problem(seed)
    start = start_of(expression, seed, 2)
    expected = fit(expression, start, target, metric, sweeps=2)[1]
    scaled = [start[0] * scale, *start[1:]]
    np.testing.assert_allclose(
        fit(expression, scaled, target * scale, metric, sweeps=2)[1], expected, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(
        fit(expression, start, target, metric * scale, sweeps=2)[1], expected, rtol=1e-3, atol=1e-6
    )


def test_refuses_terms_that_cancel(monkeypatch):
    # border rank 2, rank 3: two terms approach it without end, growing and cancelling (de Silva and Lim, 2008)
    a, b = np.eye(2)
    target = sum(np.einsum("i,j,k->ijk", *term) for term in ((a, a, b), (a, b, a), (b, a, a)))
    start = [np.random.default_rng(0).standard_normal((2, 2)) for _ in range(3)]
    monkeypatch.setattr(multilinear, "_EXPLODED", 3.0)
    with pytest.raises(DegenerateError, match="lower the rank"):
        fit("or,rx,ri->oix", start, target, sweeps=300, tolerance=1e-12)


def test_a_target_of_no_energy_gives_zeros():
    target, metric = problem(0)
    found, error = fit("or,riyx->oiyx", start_of("or,riyx->oiyx", 0), 0 * target, metric)
    assert error == 0
    assert not any(each.any() for each in found)
    assert fit("or,riyx->oiyx", start_of("or,riyx->oiyx", 0), target, 0 * metric)[1] == 0


def test_takes_little_memory_beside_the_metric():
    rng = np.random.default_rng(0)
    k = 128 * 9
    metric = np.eye(k) + 1e-2
    start = [rng.standard_normal(shape) for shape in ((64, 16), (16, 16, 3, 3), (16, 128))]
    target = rng.standard_normal((64, k))
    tracemalloc.start()
    fit("or,rsyx,si->oiyx", start, target, metric, sweeps=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * metric.nbytes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f, t, h: (f, t[:, 1:], h), r"gives \[5, 4, 2, 3\], the target is \[5, 23\]"),
        (lambda f, t, h: (f, t * np.nan, h), "not finite"),
        (lambda f, t, h: (f, t, h[1:]), "has no metric"),
        (lambda f, t, h: (f, t, h + np.inf), "the metric is not finite"),
        (lambda f, t, h: (f[:1], t, h), "has 2 factors, got 1"),
    ],
)
def test_refuses(change, reason):
    with pytest.raises(ValueError, match=reason):
        fit("or,riyx->oiyx", *change(start_of("or,riyx->oiyx", 0), *problem(0)))


def test_a_large_metric_is_as_good_in_single_precision(monkeypatch):
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((64, 600)) @ rng.standard_normal((600, 600))
    metric, target = mixed.T @ mixed + np.eye(600), rng.standard_normal((12, 600))
    start = [rng.standard_normal(shape) for shape in ((12, 8), (8, 6, 5, 5), (6, 24))]
    found, error = fit("or,rsyx,si->oiyx", start, target, metric, sweeps=4)
    monkeypatch.setattr(multilinear, "_LARGE", 10_000)
    exact = fit("or,rsyx,si->oiyx", start, target, metric, sweeps=4)[1]
    np.testing.assert_allclose(error, exact, rtol=1e-4, atol=0)  # sweeps do not end at the very minimum
    np.testing.assert_allclose(error, relative("or,rsyx,si->oiyx", found, target, metric), rtol=1e-9, atol=0)
