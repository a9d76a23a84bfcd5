"""Mixtures of Gaussians: found, merged, and who is responsible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels import mixture as kernel
from onnxpress.passes.kernels.mixture import Mixture, fit_mixture, overlaps, settle


def clusters(*centres, width=0.05, each=400, seed=0):
    draw = np.random.default_rng(seed)
    return draw.permutation(np.concatenate([centre + width * draw.standard_normal(each) for centre in centres]))


def test_finds_clusters_that_are_apart_and_gives_them_their_means():
    values = clusters(-1.0, 0.02, 1.5)
    found = fit_mixture(values, 3)
    np.testing.assert_allclose(found.means, [-1, 0, 1.5], atol=0.02)  # four standard errors, rounded up
    assert found.means[found.spike] == 0
    settled, means = settle(values, found)
    codes = found.assign(values)
    assert means[settled.spike] == 0
    assert means[2] == pytest.approx(values[codes == 2].mean(), rel=1e-12)


def test_components_without_values_are_left_out():
    mixture = Mixture(np.float64([-5, -1, 0, 3]), np.full(4, 0.1), np.full(4, 0.25), 2)
    values = np.float32([-1.25, -0.75, 0, 2, 3])
    left, means = settle(values, mixture)
    np.testing.assert_array_equal(left.means, [-1, 0, 3])
    np.testing.assert_array_equal(means, [-1, 0, 2.5])
    assert left.spike == 1
    np.testing.assert_array_equal(left.assign(values), mixture.assign(values) - 1)


def test_the_spike_stays_though_nothing_is_near_it():
    left, means = settle(np.float32([-1, 1]), Mixture(np.float64([-1, 0, 1]), np.full(3, 0.1), np.full(3, 1 / 3), 1))
    np.testing.assert_array_equal(means, [-1, 0, 1])
    assert left.spike == 1


def test_zeros_belong_to_the_spike_and_make_it_heavier():
    values = clusters(-1.0, 0.1, 1.0)
    sparse = np.concatenate([values, np.zeros(9000)])
    plain, found = fit_mixture(values, 3), fit_mixture(sparse, 3)
    assert found.portions[found.spike] > 0.9
    assert found.portions.sum() == pytest.approx(1)
    codes = found.assign(sparse)
    assert (codes[values.size :] == found.spike).all()
    assert (codes == found.spike).sum() >= (plain.assign(sparse) == plain.spike).sum()


@given(st.integers(0, 50), st.integers(2, 9))
def test_each_value_goes_to_the_component_with_the_highest_likelihood(seed, components):
    values = np.random.default_rng(seed).standard_normal(200)
    found = fit_mixture(values, components, seed=seed)
    chance = (
        found.portions
        / np.sqrt(found.variances)
        * np.exp(-((values[:, None] - found.means) ** 2) / (2 * found.variances))
    )
    taken = np.take_along_axis(chance, found.assign(values)[:, None].astype(int), axis=1)[:, 0]
    np.testing.assert_allclose(taken, chance.max(axis=1), rtol=1e-9)


@given(st.integers(0, 50), st.floats(0.1, 1.0))
def test_merging_keeps_the_mass_and_leaves_no_pair_above_the_limit(seed, limit):
    draw = np.random.default_rng(seed)
    means = np.sort(draw.standard_normal(8))
    spike = int(np.argmin(abs(means)))
    means[spike] = 0
    portions = draw.dirichlet(np.ones(8))
    merged = Mixture(means, draw.uniform(0.01, 0.5, 8), portions, spike).merged(limit)
    assert merged.portions.sum() == pytest.approx(1)
    assert merged.means[merged.spike] == 0
    assert (np.diff(merged.means) > 0).all()
    assert (overlaps(merged.means, merged.variances) <= limit).all()


def test_overlap_is_one_for_equal_and_zero_for_distant_gaussians():
    np.testing.assert_allclose(overlaps(np.float64([1, 1, 99]), np.float64([2, 2, 2])), [1, 0], atol=1e-12)
    # equal variances: exp(-d²/8) for a distance of d standard deviations
    assert overlaps(np.float64([0, 2]), np.float64([1, 1]))[0] == pytest.approx(np.exp(-0.5), rel=1e-12)


def test_learns_from_a_sample_and_works_in_pieces(monkeypatch):
    values = clusters(-1.0, 0.0, 1.0, each=3000)
    whole = fit_mixture(values, 3)
    monkeypatch.setattr(kernel, "LEARNED", 900)
    monkeypatch.setattr(kernel, "_SCORES", 60)
    part = fit_mixture(values, 3)
    np.testing.assert_allclose(part.means, whole.means, atol=0.02)
    assert (part.assign(values) != whole.assign(values)).mean() < 0.01


def test_the_scale_of_the_values_makes_no_difference():
    values = clusters(-1.0, 0.0, 1.0)
    np.testing.assert_allclose(fit_mixture(1e-6 * values, 3).means, 1e-6 * fit_mixture(values, 3).means, rtol=1e-6)


def test_refuses_values_that_are_too_few_or_not_finite():
    with pytest.raises(ValueError, match="3 weights that are not zero are too few for 2 components"):
        fit_mixture(np.float32([0, 1, 2, 3, 0]), 2)
    with pytest.raises(ValueError, match="cannot fit values that are not finite"):
        fit_mixture(np.float32([0, np.nan]), 2)
