import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.pairs import Stage, compare
from onnxpress.passes.kernels.products import Rows, Table

COUNTS = st.integers(2, 9)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(array):
    return Rows([array])


def random_rows(seed, count, width):
    return np.random.default_rng(seed).standard_normal((count, width))


def best_factor(one, other, factors):
    if factors == "one":
        return 1.0
    best = one @ other / (other @ other)
    return max(best, 0.0) if factors == "positive" else best


def costs_of(pairs):
    every = np.arange(len(pairs.energy))
    return pairs.costs(every, every)


@given(seed=SEEDS, count=COUNTS, factors=st.sampled_from(["one", "positive", "any"]))
def test_costs_are_squared_distances_from_the_best_multiple(seed, count, factors):
    rows = random_rows(seed, count, 3)
    pairs = compare([Stage(rows_of(rows))], factors=factors)
    cost = costs_of(pairs)
    for gone in range(count):
        for kept in range(count):
            if gone == kept:
                assert cost[gone, kept] == np.inf
                continue
            factor = best_factor(rows[gone], rows[kept], factors)
            assert pairs.factor(gone, kept) == pytest.approx(factor, rel=1e-6, abs=1e-9)
            distance = np.square(rows[gone] - factor * rows[kept]).sum()
            assert cost[gone, kept] == pytest.approx(distance, rel=1e-6, abs=1e-9 * np.square(rows).sum())


@given(seed=SEEDS, count=COUNTS)
def test_equal_twins_cost_nothing_and_others_something(seed, count):
    rows = random_rows(seed, count, 4)
    rows[-1] = rows[0]
    cost = costs_of(compare([Stage(rows_of(rows.astype(np.float32)))], factors="one"))
    assert cost[0, count - 1] == cost[count - 1, 0] == 0
    assert np.count_nonzero(cost == 0) == 2


def test_gains_must_agree_as_they_are():
    source = rows_of(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    gain = rows_of(np.array([[1.0], [1.0], [2.0]]))
    cost = costs_of(compare([Stage(source, gain)], factors="positive"))
    assert cost[0, 1] == cost[1, 0] == 0
    assert cost[0, 2] == pytest.approx(5 * 1)  # ‖w_0‖² (g_0 − g_2)²
    assert cost[2, 0] == pytest.approx(45 * 1)


def test_what_is_added_behind_a_gain_counts_as_it_is():
    weights, kernels = rows_of(np.eye(3)), rows_of(np.full((3, 1), 0.0))
    behind = rows_of(np.array([[1.0], [1.0], [5.0]]))
    cost = costs_of(compare([Stage(weights, kernels), Stage(behind)], factors="one"))
    assert cost[0, 1] == pytest.approx(0)  # nothing of the weights comes through
    assert cost[0, 2] == pytest.approx(16)


def test_refuses_stages_of_different_units():
    with pytest.raises(ValueError, match="different numbers of units"):
        compare([Stage(rows_of(np.eye(3)), rows_of(np.eye(2)))], factors="one")
    with pytest.raises(ValueError, match="different numbers of units"):
        compare([], factors="one")


@given(seed=SEEDS, count=COUNTS, factors=st.sampled_from(["one", "positive", "any"]))
def test_tiles_find_the_nearest_of_all(seed, count, factors):
    """Of equal ones the first; gains are not symmetric, so each direction of a tile counts."""
    rows, gains = random_rows(seed, count, 3), random_rows(seed + 1, count, 2)
    rows[-1], gains[-1] = rows[0], gains[0]
    stages = [Stage(rows_of(rows), rows_of(gains)), Stage(Rows([rows[:, :1]]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxpress.passes.kernels.pairs._TILE", 2)
        pairs = compare(stages, factors=factors)
        every, alive = np.arange(count), np.arange(count) > 0
        twin, nearest = pairs.seek(every, alive)
    cost = costs_of(pairs)
    np.testing.assert_array_equal(pairs.twin, cost.argmin(axis=1))
    np.testing.assert_allclose(pairs.nearest, cost.min(axis=1), rtol=1e-9, atol=1e-12)  # order of sums in float64
    np.testing.assert_allclose(nearest, cost[:, 1:].min(axis=1, initial=np.inf), rtol=1e-9, atol=1e-12)
    assert (twin[np.isfinite(nearest)] > 0).all()


def test_known_products_do_as_well_as_rows():
    rows = random_rows(3, 5, 4)
    ours, known = compare([Stage(rows_of(rows))], factors="any"), compare([Stage(Table(rows @ rows.T))], factors="any")
    np.testing.assert_array_equal(ours.twin, known.twin)
    np.testing.assert_allclose(ours.nearest, known.nearest, rtol=1e-9, atol=1e-12)


def test_no_matrix_of_all_pairs_is_held():
    rows = Rows([np.random.default_rng(0).standard_normal((4096, 4)).astype(np.float32)])
    tracemalloc.start()
    compare([Stage(rows)], factors="positive")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 8 * 0.75
