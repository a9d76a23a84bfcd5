"""Ranges from histograms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.affine import INT8, INT8_SYMMETRIC, UINT8, Grid, affine_scale, dequantize, quantize
from onnxpress.passes.kernels.clipping import entropy_range, mean_squared_error, mse_range, percentile_range

FOUR_BITS = Grid(0, 15, np.dtype(np.uint8))


@st.composite
def histograms(draw):
    """Counts and edges; the outer bins may be as thin as they like, others are equal."""
    counts = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
    width, start = 2.0 ** draw(st.integers(-12, 8)), draw(st.integers(-60, 60))
    edges = (start + np.arange(len(counts) + 1)) * width
    edges[0] += width * draw(st.floats(0, 1, exclude_max=True)) * (len(counts) > 1)
    edges[-1] -= width * draw(st.floats(0, 1)) * (len(counts) > 1)
    return np.array(counts), edges


def drawn(seed=0, *, heavy=False, shift=0.0, size=20_000):
    random = np.random.default_rng(seed)
    values = random.standard_t(2.5, size) if heavy else random.standard_normal(size)
    values = np.sort(values + shift)
    counts, edges = np.histogram(values, 1500)
    return values, counts, edges


def real_error(values, bounds, grid):
    scale, zero = affine_scale(*bounds, grid)
    array = values.astype(np.float32)
    codes = quantize(array, scale, zero, grid=grid)
    return float(np.mean((dequantize(codes, scale, zero) - array.astype(np.float64)) ** 2))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(histograms(), st.booleans())
def test_all_of_the_entries_are_minimum_and_maximum(histogram, symmetric):
    counts, edges = histogram
    low, high = percentile_range(counts, edges, percent=100, symmetric=symmetric)
    if not symmetric:
        assert (low, high) == (edges[0], edges[-1])
    elif counts[0] and counts[-1]:
        # in float64; both ends hold something, so the further one is the reach
        np.testing.assert_allclose(max(-low, high), max(-edges[0], edges[-1]), rtol=1e-9, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(histograms(), st.floats(0.1, 100), st.floats(0.1, 100), st.booleans())
def test_percentiles_are_monotone_and_within_the_extremes(histogram, one, other, symmetric):
    counts, edges = histogram
    narrow, wide = (percentile_range(counts, edges, percent=p, symmetric=symmetric) for p in sorted((one, other)))
    if symmetric:
        assert max(-narrow[0], narrow[1]) <= max(-wide[0], wide[1])
    else:
        assert wide[0] <= narrow[0]
        assert narrow[1] <= wide[1]
        assert edges[0] <= wide[0] <= wide[1] <= edges[-1]


@pytest.mark.parametrize("percent", [90, 99, 99.9])
def test_percentiles_are_those_of_the_values(percent):
    values, counts, edges = drawn(heavy=True, shift=3)
    tail = (100 - percent) / 2
    width = edges[1] - edges[0]

    def between(bound, array, part):
        return (
            np.percentile(array, part, method="lower") - width
            <= bound
            <= np.percentile(array, part, method="higher") + width
        )

    low, high = percentile_range(counts, edges, percent=percent)
    assert between(low, values, tail)
    assert between(high, values, 100 - tail)
    low, high = percentile_range(counts, edges, percent=percent, symmetric=True)
    assert between(high, np.abs(values), percent)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(histograms(), st.sampled_from([UINT8, INT8, FOUR_BITS]), st.booleans())
def test_least_squared_error_is_never_worse_than_minimum_and_maximum(histogram, grid, symmetric):
    counts, edges = histogram
    if symmetric:
        low, high = mse_range(counts, edges, grid=INT8_SYMMETRIC, symmetric=True)
        assert edges[0] <= low or low == -high
        assert high <= edges[-1] or high == -low
        return
    low, high = mse_range(counts, edges, grid=grid)
    assert edges[0] <= low <= high <= edges[-1]
    if counts.any():
        found = mean_squared_error(counts, edges, (low, high), grid=grid)
        # equal but for rounding where minimum and maximum are best
        assert found <= mean_squared_error(counts, edges, (edges[0], edges[-1]), grid=grid) * (1 + 1e-12)


@pytest.mark.parametrize("grid", [UINT8, INT8, FOUR_BITS])
@pytest.mark.parametrize("shift", [0.0, 5.0, -2.0])
def test_least_squared_error_is_close_to_the_best_that_a_search_over_the_values_finds(grid, shift):
    values, counts, edges = drawn(heavy=True, shift=shift)
    found = real_error(values, mse_range(counts, edges, grid=grid), grid)
    lows = np.linspace(min(edges[0], 0), 0, 40)
    highs = np.linspace(max(edges[-1], 0), 0, 40)
    best = min(real_error(values[::7], (low, high), grid) for low in lows for high in highs if low < high)
    # the search sees every seventh value, and neither is exact
    assert found <= 1.25 * real_error(values, (edges[0], edges[-1]), grid)
    assert found <= 1.5 * best


@settings(deadline=None, derandomize=True, max_examples=40)
@given(histograms(), st.sampled_from([UINT8, FOUR_BITS]))
def test_error_is_the_integral_over_the_bins(histogram, grid):
    counts, edges = histogram
    if not counts.any():
        return
    bounds = (edges[0] / 2, edges[-1] * 0.75) if edges[0] / 2 <= edges[-1] * 0.75 else (edges[0], edges[-1])
    scale, zero = affine_scale(*bounds, grid)
    parts = (np.arange(2000) + 0.5) / 2000
    points = edges[:-1, None] + np.diff(edges)[:, None] * parts
    codes = np.clip(np.rint(points / float(scale)) + int(zero), grid.low, grid.high)
    errors = (((codes - int(zero)) * float(scale) - points) ** 2).mean(axis=1)
    expected = errors @ counts / counts.sum()
    # the midpoint rule with 2000 points; thin bins count as points
    found = mean_squared_error(counts, edges, bounds, grid=grid)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-9 * float(scale) ** 2)


def test_symmetric_range_is_the_best_of_a_search():
    _, counts, edges = drawn(heavy=True)
    reach = max(map(abs, mse_range(counts, edges, grid=INT8_SYMMETRIC, symmetric=True)))
    grid = Grid(-127, 127, np.dtype(np.int8))

    def error(bound):
        return mean_squared_error(counts, edges, (-bound, bound), grid=grid)

    # of 300 bounds, all symmetric, so that the zero point is 0
    assert error(reach) <= 1.01 * min(error(b) for b in np.linspace(0.01, 1, 300) * np.abs(edges).max())


@settings(deadline=None, derandomize=True, max_examples=40)
@given(histograms(), st.integers(2, 64))
def test_entropy_keeps_within_the_extremes_and_holds_as_many_bins_as_codes(histogram, codes):
    counts, edges = histogram
    low, high = entropy_range(counts, edges, codes=codes)
    assert edges[0] <= low < high <= edges[-1] or len(counts) == 1 or edges[0] == edges[-1]
    assert min(codes, len(counts)) <= np.searchsorted(edges, high) - np.searchsorted(edges, low)
    if edges[0] <= 0 <= edges[-1]:
        assert low <= 0 <= high


def test_entropy_cuts_off_a_lone_outlier_on_either_side():
    values, _, _ = drawn()
    for outlier in (60.0, -60.0):
        counts, edges = np.histogram(np.append(values, outlier), 2048)
        low, high = entropy_range(counts, edges, codes=128)
        assert max(-low, high) < 20
        assert (low < -2.5, high > 2.5) == (True, True)


def test_entropy_keeps_what_is_spread_evenly():
    counts, edges = np.full(1024, 10), np.linspace(-1, 3, 1025)
    assert entropy_range(counts, edges, codes=256) == (-1, 3)


def test_a_spike_at_zero_costs_nothing():
    values, _, _ = drawn()
    values = np.maximum(values, 0)
    plain, edges = np.histogram(values[values > 0], 2048, range=(0, values.max()))
    spiked = plain.copy()
    spiked[0] += 100 * len(values)
    assert entropy_range(spiked, edges, codes=256) == entropy_range(plain, edges, codes=256)


def test_a_single_value_is_its_own_range():
    for value in (0.0, 3.0, -2.0):
        counts, edges = np.array([7]), np.array([value, value])
        assert percentile_range(counts, edges, percent=99) == (value, value)
        assert mse_range(counts, edges, grid=UINT8) == (value, value)
        assert entropy_range(counts, edges, codes=256) == (value, value)


def test_refuses_what_is_no_histogram():
    for counts, edges in (
        ([], [0.0]),
        ([1, 2], [0.0, 1.0]),
        ([1], [1.0, 0.0]),
        ([-1], [0.0, 1.0]),
        ([1], [0.0, np.inf]),
    ):
        with pytest.raises(ValueError, match=r"one more edge|ascending"):
            mse_range(np.array(counts), np.array(edges), grid=UINT8)
    for percent in (0, 101, np.nan):
        with pytest.raises(ValueError, match=r"lies in \(0, 100\]"):
            percentile_range([1], [0.0, 1.0], percent=percent)
    with pytest.raises(ValueError, match="1 codes hold no information"):
        entropy_range([1], [0.0, 1.0], codes=1)
    with pytest.raises(ValueError, match="without entries"):
        mean_squared_error([0], [0.0, 1.0], (0, 1), grid=UINT8)
