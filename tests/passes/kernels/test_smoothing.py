import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.smoothing import Layer, Trial, decibels, search

modest = settings(deadline=None, derandomize=True, max_examples=25)


def layer(random, *, channels=12, spread=1.0, groups=1, taps=1):
    sizes = np.repeat(np.exp(spread * random.standard_normal(channels)), taps).reshape(groups, 1, -1)
    k = channels * taps // groups
    rows = (random.standard_normal((groups, 40, k)) * sizes).astype(np.float32)
    weight = random.standard_normal((groups, 6, k)).astype(np.float32)
    owners = np.repeat(np.arange(channels), taps).reshape(groups, k)
    return Layer(rows, np.zeros(40, np.int64), weight, owners)


def trial(*layers, channels=12):
    low, high = np.zeros((1, channels)), np.zeros((1, channels))
    for each in layers:
        for group, owners in enumerate(each.channels):
            np.minimum.at(low[0], owners, each.rows[group].min(axis=0))
            np.maximum.at(high[0], owners, each.rows[group].max(axis=0))
    return Trial(layers, low=low, high=high)


@modest
@given(seed=st.integers(0, 1000), spread=st.floats(0, 4), groups=st.sampled_from([1, 3, 12]), taps=st.integers(1, 3))
def test_factors_are_positive_of_mean_one_and_judged_by_their_error(seed, spread, groups, taps):
    tried = trial(layer(np.random.default_rng(seed), spread=spread, groups=groups, taps=taps))
    found = search(tried)
    assert (found.scale > 0).all()
    assert np.log(found.scale).mean() == pytest.approx(0, abs=1e-9)  # float64 rounding
    assert found.before == tried.error(np.ones(12))
    assert found.after == tried.error(found.scale)
    assert found.gain == decibels(found.after) - decibels(found.before)


@modest
@given(seed=st.integers(0, 1000), common=st.floats(0.01, 100))
def test_a_factor_for_all_channels_changes_nothing(seed, common):
    tried = trial(layer(np.random.default_rng(seed)))
    # rounding of scales to float32 moves a few codes
    assert tried.error(np.full(12, common)) == pytest.approx(tried.plain, rel=0.05)


def test_an_outlier_channel_is_worth_factors():
    random = np.random.default_rng(0)
    even = layer(random, spread=0.0)
    even.rows[..., 3] *= 100
    assert search(trial(even)).gain > 10


def test_factors_serve_all_layers_that_read_the_tensor():
    random = np.random.default_rng(1)
    one = layer(random, spread=2.0)
    other = Layer(one.rows, one.folds, random.standard_normal((1, 9, 12)).astype(np.float32), one.channels)
    both = trial(one, other)
    scale = search(both).scale
    assert both.error(scale) == pytest.approx((trial(one).error(scale) + trial(other).error(scale)) / 2, rel=1e-6)


def test_samples_beyond_a_range_of_others_are_cut():
    random = np.random.default_rng(2)
    seen = layer(random, spread=0.0)
    halves = Layer(seen.rows, np.arange(40) % 2, seen.weight, seen.channels)
    low, high = np.full((2, 12), -4.0), np.full((2, 12), 4.0)
    wide = Trial([halves], low=low, high=high).plain
    high[1] = low[1] = 0.0
    high[1, 0] = 1.0
    assert Trial([halves], low=low, high=high).plain > 10 * wide


def test_one_strength_is_taken_as_it_is():
    tried = trial(layer(np.random.default_rng(3), spread=2.0))
    found = search(tried, strength=0.25)
    np.testing.assert_allclose(found.scale, tried.power(0.25), rtol=1e-12)
    assert found.how == "alpha 0.25"


def test_dead_channels_and_tiny_ones_are_not_blown_up():
    random = np.random.default_rng(4)
    some = layer(random, spread=0.0)
    some.rows[..., 0] = 0
    some.rows[..., 1] *= np.float32(1e-38)
    some.weight[..., 2] = 0
    tried = trial(some)
    for scale in (tried.power(0.0), tried.power(1.0), tried.cap(0.05), search(tried).scale):
        assert np.isfinite(scale).all()
        assert scale.max() / scale.min() < 1e4  # 1 / floor, times the spread of the others


def test_a_layer_that_gives_nothing_has_no_error():
    empty = Layer(
        np.zeros((1, 4, 2), np.float32),
        np.zeros(4, np.int64),
        np.zeros((1, 3, 2), np.float32),
        np.eye(2)[:1].astype(np.int64),
    )
    assert trial(empty, channels=2).plain == 0.0


@pytest.mark.parametrize("bad", ["rows", "weight"])
def test_refuses_what_is_not_finite(bad):
    some = layer(np.random.default_rng(5))
    getattr(some, bad)[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="only finite"):
        Trial([some], low=np.zeros((1, 12)), high=np.ones((1, 12)))


def test_many_outputs_are_thinned_evenly():
    random = np.random.default_rng(6)
    rows = random.standard_normal((1, 8, 4)).astype(np.float32)
    weight = random.standard_normal((1, 5000, 4)).astype(np.float32)
    tried = Trial(
        [Layer(rows, np.zeros(8, np.int64), weight, np.arange(4)[np.newaxis])],
        low=-np.ones((1, 4)),
        high=np.ones((1, 4)),
    )
    np.testing.assert_array_equal(tried.layers[0].weight, weight[:, ::3])
    np.testing.assert_array_equal(tried.peaks, np.abs(weight).max(axis=(0, 1)))
