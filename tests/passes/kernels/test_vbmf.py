"""Ranks by variational Bayes, against the free energy itself, minimised without its analytic solution.

And against the published program, written anew from the formulas it uses.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from onnxpress.passes.kernels.vbmf import vbmf, vbmf_of

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)


def observed(seed, short, long, rank, strength=1.0, noise=1.0):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((short, rank)) @ rng.standard_normal((rank, long))
    return strength * signal + noise * rng.standard_normal((short, long))


def component(values, short, long, noise, rounds=400):
    """Twice the free energy of a component and the value of its posterior mean, by coordinate descent.

    The posterior of its two vectors is Gaussian with means of norms a, b and variances s, t of each entry; the
    variances of the priors are at their optimum for these. All start large and fall to zero where no other minimum is.
    """
    a, b = np.sqrt(values), np.sqrt(values)
    s, t = noise / values, noise / values
    for _ in range(rounds):
        prior = np.maximum((a * a + long * s) / long, 1e-300)
        s = 1 / ((b * b + short * t) / noise + 1 / prior)
        a = s * b * values / noise
        prior = np.maximum((b * b + short * t) / short, 1e-300)
        t = 1 / ((a * a + long * s) / noise + 1 / prior)
        b = t * a * values / noise
    left, right = a * a + long * s, b * b + short * t
    divergence = long * np.log(left / (long * s)) + short * np.log(right / (short * t))
    return divergence + (left * right - 2 * a * b * values) / noise, a * b


def reference(values, shape, grid=250):
    """Rank, noise and values of the posterior mean for which the free energy is least, on a grid of noises."""
    short, long = sorted(shape)
    square = np.square(values)
    noises = np.geomspace(square.sum() / (short * long), max(square.min(), 1e-6 * square.max()) / (2 * long), grid)
    energies, kept = component(values, short, long, noises[:, None])
    total = short * long * np.log(noises) + square.sum() / noises + np.minimum(energies, 0).sum(axis=1)
    best = int(np.argmin(total))
    return int((energies[best] < 0).sum()), noises[best], kept[best][energies[best] < 0], total[best]


@settings(modest, max_examples=60)
@given(
    seed=seeds,
    short=st.integers(4, 24),
    more=st.integers(0, 40),
    share=st.floats(0, 0.34),
    strength=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_rank_is_that_of_least_free_energy(seed, short, more, share, strength):
    values = np.linalg.svd(observed(seed, short, short + more, int(share * short), strength), compute_uv=False)
    found = vbmf(values, (short + more, short))
    expected, noise, kept, energy = reference(values, (short, short + more))
    # a grid of 250 noises is about 4 % apart; where it cannot decide between two ranks, ours has the smaller energy
    if found.rank != expected:
        terms, _ = component(values, short, short + more, found.noise)
        area = short * (short + more)
        ours = area * np.log(found.noise) + np.square(values).sum() / found.noise + np.minimum(terms, 0).sum()
        assert ours < energy
        return
    np.testing.assert_allclose(found.noise, noise, rtol=0.06, atol=0)
    np.testing.assert_allclose(found.values, np.sort(kept)[::-1], rtol=0.06, atol=0)


def published_energy(noise, values, short, long, edge):
    """What the published program minimises over the noise: the free energy, but for a factor and a constant."""
    ratio, x = short / long, np.square(values) / (long * noise)
    signal, rest = x[x > edge], x[x <= edge]
    tau = (signal - (1 + ratio) + np.sqrt((signal - (1 + ratio)) ** 2 - 4 * ratio)) / 2
    inside = signal - tau + np.log((tau + 1) / signal) + ratio * np.log(tau / ratio + 1)
    return float((rest - np.log(rest)).sum() + inside.sum())


def published(values, shape, *, pieces=1):
    """Rank, noise and threshold as Nakajima's EVBMF and its ports to Python find them, all singular values given.

    They approximate the root τ by 2.5129·√α, and look for the noise by one bounded search, which ends in the first
    minimum it comes to; with more `pieces` each has a search of its own, and the least of all counts.
    """
    short, long = sorted(shape)
    root = 2.5129 * math.sqrt(short / long)
    edge = (1 + root) * (1 + short / long / root)
    most = min(math.ceil(short / (1 + short / long)) - 1, short) - 1  # the last value that may be signal
    high = np.square(values).sum() / (short * long)
    low = max(values[most + 1] ** 2 / (long * edge), np.square(values[most + 1 :]).mean() / long)
    bounds = np.geomspace(low, high, pieces + 1)
    found = [
        minimize_scalar(published_energy, args=(values, short, long, edge), bounds=each, method="bounded")
        for each in pairwise(bounds)
    ]
    noise = min(found, key=lambda each: each.fun).x
    return int((values > math.sqrt(long * noise * edge)).sum()), noise, edge


def low_rank_plus_noise(strengths, count, seed=0):
    """Singular values and shapes: sides 10..119 by up to four times as many, rank up to a quarter, noise of 1."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        short = int(rng.integers(10, 120))
        long = int(short * rng.uniform(1, 4))
        rank, strength = int(rng.integers(0, short // 4 + 1)), rng.choice(strengths)
        signal = strength * rng.standard_normal((short, rank)) @ rng.standard_normal((rank, long))
        yield np.linalg.svd(signal + rng.standard_normal((short, long)), compute_uv=False), (short, long)


def test_agrees_with_the_published_program_where_signal_is_clear():
    cases = list(low_rank_plus_noise([1.0, 2.0, 3.0], 400))
    assert [vbmf(values, shape).rank for values, shape in cases] == [published(*case)[0] for case in cases]


@pytest.mark.parametrize(("strengths", "agreeing"), [([0.3, 0.5, 1.0, 2.0, 3.0], 0.985), ([0.2, 0.3, 0.4], 0.95)])
def test_differs_from_the_published_program_only_where_that_is_in_a_minimum_that_is_not_the_least(strengths, agreeing):
    cases, same = list(low_rank_plus_noise(strengths, 300)), 0
    for values, shape in cases:
        found, (rank, noise, edge) = vbmf(values, shape), published(values, shape)
        same += found.rank == rank
        if found.rank != rank:  # by its own measure
            ours, theirs = (published_energy(each, values, *shape, edge) for each in (found.noise, noise))
            assert ours < theirs
    assert same >= agreeing * len(cases)


def test_agrees_with_the_published_program_once_it_searches_all_minima():
    cases = list(low_rank_plus_noise([0.2, 0.3, 0.4], 150, seed=1))
    assert [vbmf(*case).rank for case in cases] == [published(*case, pieces=40)[0] for case in cases]


@modest
@given(seed=seeds, short=st.integers(2, 40), ratio=st.floats(1, 8), noise=st.sampled_from([1e-8, 1.0, 1e8]))
def test_a_component_stays_where_its_free_energy_is_negative(seed, short, ratio, noise):
    long = round(short * ratio)
    rng = np.random.default_rng(seed)
    values = np.sort(np.sqrt(noise * long) * rng.uniform(0.5, 3.5, short))[::-1]
    energies, kept = component(values, short, long, noise, rounds=4000)
    found = vbmf(values, (short, long), noise=noise)
    sure = np.abs(energies) > 1e-3 * long  # at the threshold itself coordinate descent does not end
    np.testing.assert_array_equal((np.arange(short) < found.rank)[sure], (energies < 0)[sure])
    both = sure[: found.rank] & (energies[: found.rank] < 0)
    np.testing.assert_allclose(found.values[both], kept[: found.rank][both], rtol=1e-2, atol=0)


@modest
@given(seed=seeds, rank=st.integers(0, 6), scale=st.sampled_from([1e-20, 1.0, 1e20]), turned=st.booleans())
def test_finds_the_rank_of_a_clear_signal_at_any_scale(seed, rank, scale, turned):
    matrix = scale * observed(seed, 40, 60, rank, strength=3.0)
    found = vbmf_of(matrix.T if turned else matrix)
    assert found.rank == rank
    np.testing.assert_allclose(found.noise, scale**2, rtol=0.25, atol=0)
    observed_values = np.linalg.svd(matrix, compute_uv=False)[:rank]
    assert (found.values < observed_values).all()


def test_noise_alone_has_no_rank_and_known_noise_decides():
    values = np.linalg.svd(observed(1, 30, 50, 3), compute_uv=False)
    assert vbmf(values, (30, 50), noise=1.0).rank == 3
    assert vbmf(values, (30, 50), noise=1e3).rank == 0
    assert vbmf(values[::-1], (50, 30)).rank == vbmf(values, (30, 50)).rank == 3
    assert vbmf_of(observed(0, 30, 50, 0)).rank == 0


def test_a_matrix_without_noise_keeps_its_rank():
    assert vbmf_of(observed(0, 20, 30, 4, noise=0).astype(np.float32)).rank == 4
    assert vbmf_of(np.zeros((5, 3))).rank == 0
    assert vbmf_of(np.ones((1, 1))).rank in (0, 1)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: vbmf(np.ones(2), (3, 4)), "has 3 singular values"),
        (lambda: vbmf(np.ones(0), (0, 4)), "singular values"),
        (lambda: vbmf(np.array([1.0, np.nan]), (2, 2)), "finite and not negative"),
        (lambda: vbmf(np.array([1.0, -1.0]), (2, 2)), "finite and not negative"),
        (lambda: vbmf(np.ones(2), (2, 2), noise=0.0), "noise must be positive"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
