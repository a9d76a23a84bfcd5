import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.entropy import Source
from onnxpress.passes.kernels.kmeans import kmeans_1d
from onnxpress.passes.kernels.quantizers import entropy

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)
shapes = st.sampled_from(["standard_normal", "laplace", "uniform", "t"])


def draw(shape, rng, count):
    return {
        "standard_normal": rng.standard_normal,
        "laplace": lambda size: rng.laplace(size=size),
        "uniform": lambda size: rng.uniform(-1, 1, size),
        "t": lambda size: rng.standard_t(3, size),
    }[shape](count).astype(np.float32)


def frequencies(codes):
    return np.bincount(codes.reshape(-1).astype(int))


def distance(values, quantizer, codes):
    return float(np.linalg.norm(values - quantizer.values[codes]) / np.linalg.norm(values))


@modest
@given(seed=seeds, shape=shapes, clusters=st.integers(2, 40))
def test_is_not_worse_than_k_means_of_equal_entropy(seed, shape, clusters):
    values = draw(shape, np.random.default_rng(seed), 4000)
    centroids, codes = kmeans_1d(values, clusters)
    found = Source(values).within_bits(entropy(frequencies(codes)) + 0.01)
    peer = np.linalg.norm(values - centroids[codes]) / np.linalg.norm(values)
    # of a uniform distribution k-means is the optimum, too; targets are not hit exactly
    assert distance(values, found, found.codes(values)) <= peer * 1.03


@modest
@given(seed=seeds, shape=shapes, price=st.floats(1e-5, 0.5), weighted=st.booleans(), keep_zero=st.booleans())
def test_says_of_itself_what_its_codes_show(seed, shape, price, weighted, keep_zero):
    rng = np.random.default_rng(seed)
    values = draw(shape, rng, 2000)
    values[rng.random(values.size) < 0.2] = 0
    weights = 2.0 ** rng.integers(-6, 1, values.size) if weighted else None  # on the steps exactly
    found = Source(values, weights=weights, keep_zero=keep_zero).quantizer(price)
    codes = found.codes(values, weights)
    assert found.bits == pytest.approx(entropy(frequencies(codes)), abs=1e-9)
    assert found.error == pytest.approx(distance(values, found, codes), rel=1e-4, abs=1e-6)
    mass = np.ones(values.size) if weights is None else weights
    loss = (mass * (values - found.values[codes]) ** 2).sum() / (mass * values.astype(float) ** 2).sum()
    assert found.loss == pytest.approx(loss, rel=1e-4, abs=1e-9)
    assert (np.diff(found.values) > 0).all()


@modest
@given(seed=seeds, shape=shapes)
def test_a_higher_price_buys_fewer_bits_and_more_error(seed, shape):
    source = Source(draw(shape, np.random.default_rng(seed), 4000))
    found = [source.quantizer(2.0**power) for power in range(-14, 0)]
    # neighbours may end in different local optima; two steps further none does
    for near, far in zip(found, found[2:], strict=False):
        assert far.bits < near.bits
        assert far.loss > near.loss


@modest
@given(seed=seeds, shape=shapes, price=st.floats(1e-4, 0.3))
def test_every_weight_takes_the_value_that_costs_least(seed, shape, price):
    rng = np.random.default_rng(seed)
    values = draw(shape, rng, 500).astype(np.float64)
    weights = rng.random(500) + 1e-3
    found = Source(values, weights=weights).quantizer(price)
    codes = found.codes(values, weights)
    level = found.levels[np.abs(np.log(weights[:, None] / found.levels)).argmin(1)]
    costs = level[:, None] * (values[:, None] - found.values) ** 2 + found.price * found.lengths
    taken = np.take_along_axis(costs, codes[:, None].astype(int), 1)[:, 0]
    np.testing.assert_allclose(taken, costs.min(1), rtol=1e-9, atol=1e-12)


@modest
@given(seed=seeds, price=st.floats(1e-4, 0.3), keep_zero=st.booleans())
def test_values_ascend_whatever_the_importance(seed, price, keep_zero):
    rng = np.random.default_rng(seed)
    values = rng.integers(-5, 6, 60) / 2 + rng.choice([0, 0.01], 60)
    found = Source(values, weights=2.0 ** rng.uniform(-30, 30, 60), keep_zero=keep_zero).quantizer(price)
    assert (np.diff(found.values) > 0).all()
    assert np.isfinite(found.lengths).all()


def test_importance_moves_the_error_to_where_it_matters_less():
    rng = np.random.default_rng(0)
    values, weights = rng.standard_normal(20_000), rng.choice([0.01, 1.0], 20_000)
    plain, weighed = Source(values).within_bits(3), Source(values, weights=weights).within_bits(3)
    lost = [
        float((weights * (values - each.values[codes]) ** 2).sum())
        for each, codes in ((plain, plain.codes(values)), (weighed, weighed.codes(values, weights)))
    ]
    assert lost[1] < lost[0] / 2
    assert weighed.bits <= 3


@pytest.mark.parametrize("bits", [0.3, 1, 2.5, 4, 6])
def test_meets_a_target_of_bits(bits):
    found = Source(np.random.default_rng(0).standard_normal(20_000)).within_bits(bits)
    assert bits - 0.05 < found.bits <= bits


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5])
def test_meets_a_target_of_error(error):
    found = Source(np.random.default_rng(0).standard_normal(20_000)).within_error(error)
    assert error * 0.97 < found.error <= error


def test_takes_no_more_values_than_allowed():
    values = np.random.default_rng(0).standard_t(2, 20_000)
    assert Source(values).quantizer(1e-9).values.size <= 256
    assert Source(values).within_bits(6, limit=8).values.size <= 8
    assert Source(values).within_error(1e-6).error > 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_zeros_stay_zero(dtype):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((40, 50)) + 0.5).astype(dtype)
    values[rng.random(values.shape) < 0.4] = 0
    values[0, 0] = -0.0
    found = Source(values, keep_zero=True).within_bits(2)
    assert not found.values[found.codes(values)][values == 0].any()
    assert found.bits <= 2


def test_few_values_are_kept_where_bits_suffice():
    values = np.array([-1.0, 0.5, 3.0])[np.random.default_rng(0).integers(0, 3, 500)]
    found = Source(values).within_bits(2)
    np.testing.assert_allclose(found.values, [-1, 0.5, 3], rtol=1e-12)
    assert found.error == pytest.approx(0, abs=1e-7)


def test_weights_that_are_all_zero_take_one_value():
    found = Source(np.zeros((3, 4))).within_bits(1)
    np.testing.assert_array_equal(found.values[found.codes(np.zeros((3, 4)))], np.zeros((3, 4)))
    assert found.bits == 0


def test_refuses_what_it_cannot_do():
    values = np.ones(4)
    for given_values, weights, message in (
        (np.ones(0), None, "no values to quantize in shape"),
        (np.array([1, np.nan]), None, "cannot quantize values that are not finite"),
        (values, np.ones(3), "do not fit values of shape"),
        (values, np.zeros(4), "weights must be finite, not negative and not all zero"),
        (values, -values, "weights must be finite, not negative and not all zero"),
    ):
        with pytest.raises(ValueError, match=message):
            Source(given_values, weights=weights)
    with pytest.raises(ValueError, match="price 0 must be positive"):
        Source(values).quantizer(0)
    with pytest.raises(ValueError, match="limit 300 must lie in 2 to 256"):
        Source(values).quantizer(0.1, limit=300)


def test_settles_in_fewer_rounds_where_less_is_asked(monkeypatch):
    values = np.random.default_rng(0).standard_normal(20_000)
    rounds, moved = [], Source._moved
    monkeypatch.setattr(Source, "_moved", lambda *given: rounds.append(1) or moved(*given))
    source = Source(values)
    fine, many = source.quantizer(0.01), len(rounds)
    rough, few = source.quantizer(0.01, settled=1e-4), len(rounds) - many
    assert few < many / 2
    assert abs(rough.loss - fine.loss) < 0.02 * fine.loss
