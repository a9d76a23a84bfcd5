from itertools import combinations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import kmeans, points
from onnxpress.passes.kernels.kmeans import kmeans_1d, kmeans_rows

modest = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10_000)
dtypes = st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64])


def squared_error(values, centroids, codes, weights=None):
    lost = np.square(values.astype(np.float64) - centroids.astype(np.float64)[codes])
    return float(np.sum(lost if weights is None else lost * weights))


def least_error(values, clusters, weights):
    """By trying every division of the sorted values into intervals."""
    order = np.argsort(values)
    value, weight = values[order].astype(np.float64), weights[order]
    best = np.inf
    for cuts in combinations(range(1, value.size), clusters - 1):
        parts = zip(np.split(value, cuts), np.split(weight, cuts), strict=True)
        best = min(best, sum(float(np.sum(w * (v - np.average(v, weights=w)) ** 2)) for v, w in parts))
    return best


@modest
@given(
    seed=seeds, count=st.integers(5, 10), clusters=st.integers(1, 4), weighted=st.booleans(), offset=st.floats(-9, 9)
)
def test_is_optimal_on_small_inputs(seed, count, clusters, weighted, offset):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(count) ** 3 + offset
    weights = rng.random(count) + 0.01 if weighted else None
    centroids, codes = kmeans_1d(values, clusters, weights=weights)
    least = least_error(values, clusters, np.ones(count) if weights is None else weights)
    # the trace of mass given to every value is 1e-9 of the mean
    np.testing.assert_allclose(squared_error(values, centroids, codes, weights), least, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("clusters", [2, 16, 64])
def test_is_not_worse_than_scikit_learn(clusters):
    from sklearn.cluster import KMeans

    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    peer = KMeans(clusters, n_init=3, random_state=0).fit(values[:, None])
    centroids, codes = kmeans_1d(values, clusters)
    assert squared_error(values, centroids, codes) <= peer.inertia_ * (1 + 1e-6)


@modest
@given(seed=seeds, few=st.integers(1, 16), dtype=dtypes)
def test_is_lossless_where_there_are_no_more_values_than_clusters(seed, few, dtype):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(few).astype(dtype)[rng.integers(0, few, (6, 7))]
    centroids, codes = kmeans_1d(values, 16)
    np.testing.assert_array_equal(centroids[codes].astype(dtype), values)
    assert codes.dtype == np.uint8
    assert centroids.dtype == (np.float64 if dtype is np.float64 else np.float32)


@modest
@given(seed=seeds, clusters=st.integers(2, 20), dtype=dtypes, weighted=st.booleans())
def test_zeros_stay_exactly_zero(seed, clusters, dtype, weighted):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(300) + rng.choice([-3, 0, 3])).astype(dtype)
    values[rng.random(300) < 0.5] = 0
    values[0] = -0.0
    weights = rng.random(300) if weighted else None
    centroids, codes = kmeans_1d(values, clusters, weights=weights, keep_zero=True)
    assert 0 in centroids
    assert (centroids[codes][values == 0] == 0).all()
    assert centroids.size <= clusters


@pytest.mark.parametrize("sign", [-1, 1])
def test_keep_zero_adds_no_zero_to_values_without_one(sign):
    values = sign * np.linspace(1, 2, 100)
    centroids, _ = kmeans_1d(values, 4, keep_zero=True)
    np.testing.assert_array_equal(centroids, kmeans_1d(values, 4)[0])


def distribution(name, size, rng):
    """Values of many kinds: smooth, of heavy tails, gathered around few places, rounded, or with many equal ones."""
    if name == "mixture":
        return np.where(rng.random(size) < 0.3, rng.normal(-3, 0.1, size), rng.normal(1, 1, size))
    if name == "spikes":
        return rng.standard_normal(40)[rng.integers(0, 40, size)] + 1e-4 * rng.standard_normal(size)
    if name == "powers":
        return 10.0 ** rng.integers(-8, 8, size) * (1 + 1e-3 * rng.standard_normal(size))
    if name == "zeros":
        return np.where(rng.random(size) < 0.6, 0, rng.standard_normal(size))
    if name == "outlier":
        return np.append(rng.standard_normal(size - 1), 1e4)
    draw = {"normal": rng.standard_normal, "uniform": rng.random, "laplace": lambda n: rng.laplace(size=n)}
    return draw.get(name, lambda n: rng.standard_t(2, n))(size)


DISTRIBUTIONS = ("normal", "laplace", "uniform", "mixture", "spikes", "powers", "zeros", "outlier", "heavy tails")


@settings(modest, max_examples=30)
@given(
    seed=seeds,
    name=st.sampled_from(DISTRIBUTIONS),
    dtype=dtypes,
    clusters=st.integers(2, 24),
    options=st.fixed_dictionaries({"keep_zero": st.booleans()}),
    weighted=st.booleans(),
)
def test_many_distinct_values_are_within_a_ten_thousandth_of_the_optimum(
    seed, name, dtype, clusters, options, weighted
):
    rng = np.random.default_rng(seed)
    values = distribution(name, 9000, rng).astype(dtype)
    weights = rng.random(values.size) if weighted else None
    least = squared_error(values, *kmeans_1d(values, clusters, weights=weights, start="exact", **options), weights)
    found = squared_error(values, *kmeans_1d(values, clusters, weights=weights, **options), weights)
    # where clusters hold the values almost exactly, rounded centroids leave an error of their own
    rounding = np.finfo(np.float64 if dtype is np.float64 else np.float32).eps
    floor = values.size * (rounding * float(np.abs(values.astype(np.float64)).max())) ** 2
    assert found <= least * (1 + 1e-4) + floor


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_is_not_worse_than_scikit_learn_on(name):
    from sklearn.cluster import KMeans

    values = distribution(name, 8000, np.random.default_rng(0)).astype(np.float32)
    peer = KMeans(16, n_init=1, random_state=0).fit(values.astype(np.float64)[:, None])
    assert squared_error(values, *kmeans_1d(values, 16)) <= peer.inertia_ * (1 + 1e-6)


def test_is_the_same_every_time():
    values = distribution("normal", 9000, np.random.default_rng(0)).astype(np.float32)
    weights = np.random.default_rng(1).random(9000)
    for options in ({}, {"weights": weights}, {"keep_zero": True}):
        first, again = kmeans_1d(values, 16, **options), kmeans_1d(values.copy(), 16, **options)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize("keep_zero", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_bins_do_almost_as_well_as_sorting(monkeypatch, keep_zero, weighted):
    rng = np.random.default_rng(1)
    values = rng.standard_t(3, 60_000).astype(np.float32)
    values[rng.random(values.size) < 0.3] = 0
    weights = rng.random(values.size) if weighted else None
    exact = squared_error(values, *kmeans_1d(values, 16, weights=weights, keep_zero=keep_zero), weights)
    monkeypatch.setattr(points, "SORTED", 1000)
    centroids, codes = kmeans_1d(values, 16, weights=weights, keep_zero=keep_zero)
    assert squared_error(values, centroids, codes, weights) <= exact * (1 + 1e-4)
    assert not keep_zero or 0 in centroids


def test_bins_find_few_values_far_from_zero(monkeypatch):
    monkeypatch.setattr(points, "SORTED", 1000)
    rng = np.random.default_rng(2)
    offset = (1 + rng.standard_normal(30_000) * 1e-4).astype(np.float32)
    centroids, codes = kmeans_1d(offset, 16)
    # 16 levels of a normal distribution leave about 1.0 % of the variance
    assert squared_error(offset, centroids, codes) < 0.012 * offset.size * 1e-8
    few = rng.standard_normal(8).astype(np.float32)[rng.integers(0, 8, 30_000)]
    centroids, codes = kmeans_1d(few, 16)
    np.testing.assert_array_equal(centroids[codes], few)


@modest
@given(seed=seeds, clusters=st.integers(2, 8), keep_zero=st.booleans(), weighted=st.booleans())
def test_rows_are_clustered_as_if_alone(seed, clusters, keep_zero, weighted):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((5, 60)).astype(np.float32) * np.arange(5, dtype=np.float32)[:, None]
    values[3, 4:] = 0
    weights = rng.random(values.shape) if weighted else None
    books, codes = kmeans_rows(values, clusters, weights=weights, keep_zero=keep_zero)
    assert books.shape == (5, clusters)
    assert (np.diff(books, axis=1) >= 0).all()
    for row in range(5):
        weight = None if weights is None else weights[row]
        alone = squared_error(
            values[row], *kmeans_1d(values[row], clusters, weights=weight, keep_zero=keep_zero), weight
        )
        together = squared_error(values[row], books[row], codes[row], weight)
        np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-12)


def test_a_scalar_and_one_cluster():
    centroids, codes = kmeans_1d(np.float32(3.5).reshape(()), 1)
    assert centroids[codes] == 3.5
    centroids, _ = kmeans_1d(np.array([1.0, 2.0, 6.0]), 1)
    np.testing.assert_allclose(centroids, [3.0], rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("values", "clusters", "options", "reason"),
    [
        (np.array([1.0, np.nan]), 2, {}, "not finite"),
        (np.array([1.0, -np.inf]), 2, {}, "not finite"),
        (np.zeros(0), 2, {}, "no values"),
        (np.ones(3), 0, {}, "at least 1"),
        (np.ones(3), 1, {"keep_zero": True}, "at least 2 with keep_zero"),
        (np.ones(3), 2, {"weights": np.ones(2)}, "do not fit"),
        (np.ones(3), 2, {"weights": np.array([1, -1, 1.0])}, "weights must be"),
        (np.ones(3), 2, {"weights": np.zeros(3)}, "weights must be"),
        (np.ones(3), 2, {"weights": np.array([1, np.nan, 1])}, "weights must be"),
    ],
)
def test_refuses(values, clusters, options, reason):
    with pytest.raises(ValueError, match=reason):
        kmeans_1d(values, clusters, **options)


@modest
@given(seed=seeds, clusters=st.integers(2, 20), start=st.sampled_from(kmeans.STARTS[2:]), weighted=st.booleans())
def test_other_starts_end_where_each_centroid_is_the_mean_of_its_values(seed, clusters, start, weighted):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(400)
    weights = rng.random(400) + 0.01 if weighted else None
    centroids, codes = kmeans_1d(values, clusters, weights=weights, start=start, seed=seed)
    assert np.unique(codes).size == centroids.size <= clusters
    for code, centroid in enumerate(centroids):
        chosen = codes == code
        mean = np.average(values[chosen], weights=None if weights is None else weights[chosen])
        assert centroid == pytest.approx(mean, rel=1e-6, abs=1e-9)  # of a trace of mass


@pytest.mark.parametrize("start", kmeans.STARTS)
def test_no_start_ends_better_than_the_optimal_one(start):
    values = np.random.default_rng(0).standard_t(3, 3000)
    least = squared_error(values, *kmeans_1d(values, 12))
    assert squared_error(values, *kmeans_1d(values, 12, start=start)) >= least * (1 - 1e-9)


@pytest.mark.parametrize("start", kmeans.STARTS)
def test_every_start_keeps_zeros_and_few_values(start):
    values = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    values[np.abs(values) < 0.5] = 0
    centroids, codes = kmeans_1d(values, 6, keep_zero=True, start=start)
    assert not centroids[codes][values == 0].any()
    books, codes = kmeans_rows(values, 6, keep_zero=True, start=start)
    assert not np.take_along_axis(books, codes.astype(int), 1)[values == 0].any()
    np.testing.assert_array_equal(kmeans_1d(np.arange(3.0), 8, start=start)[0], np.arange(3.0))


def test_seed_decides_where_random_starts():
    values = np.random.default_rng(0).standard_t(3, 3000)
    first, again, other = (kmeans_1d(values, 12, start="random", seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
