import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.merging import Stage, carry_out, choose, compare, gram

COUNTS = st.integers(2, 9)
SEEDS = st.integers(0, 2**32 - 1)


def random_rows(seed, count, width):
    return np.random.default_rng(seed).standard_normal((count, width))


def best_factor(one, other, factors):
    if factors == "one":
        return 1.0
    best = one @ other / (other @ other)
    return max(best, 0.0) if factors == "positive" else best


def test_gives_the_same_products_in_pieces(monkeypatch):
    rows = random_rows(0, 5, 101).astype(np.float32)
    whole = gram(rows)
    monkeypatch.setattr("onnxpress.passes.kernels.merging._COLUMNS", 40)
    np.testing.assert_allclose(gram(rows), whole, rtol=1e-12, atol=1e-12)  # order of sums in float64
    np.testing.assert_allclose(whole, rows.astype(np.float64) @ rows.T.astype(np.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_refuses_what_is_no_number(wrong):
    with pytest.raises(ValueError, match="NaN or infinite"):
        gram(np.array([[1.0, wrong], [0.0, 1.0]]))


@given(seed=SEEDS, count=COUNTS, factors=st.sampled_from(["one", "positive", "any"]))
def test_costs_are_squared_distances_from_the_best_multiple(seed, count, factors):
    rows = random_rows(seed, count, 3)
    pairs = compare([Stage(gram(rows))], factors=factors)
    for gone in range(count):
        for kept in range(count):
            if gone == kept:
                assert pairs.cost[gone, kept] == np.inf
                continue
            factor = best_factor(rows[gone], rows[kept], factors)
            assert pairs.factor[gone, kept] == pytest.approx(factor, rel=1e-6, abs=1e-9)
            distance = np.square(rows[gone] - factor * rows[kept]).sum()
            assert pairs.cost[gone, kept] == pytest.approx(distance, rel=1e-6, abs=1e-9 * np.square(rows).sum())


@given(seed=SEEDS, count=COUNTS)
def test_equal_twins_cost_nothing_and_others_something(seed, count):
    rows = random_rows(seed, count, 4)
    rows[-1] = rows[0]
    cost = compare([Stage(gram(rows.astype(np.float32)))], factors="one").cost
    assert cost[0, count - 1] == cost[count - 1, 0] == 0
    assert np.count_nonzero(cost == 0) == 2


def test_gains_must_agree_as_they_are():
    source = gram(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    gain = gram(np.array([[1.0], [1.0], [2.0]]))
    cost = compare([Stage(source, gain)], factors="positive").cost
    assert cost[0, 1] == cost[1, 0] == 0
    assert cost[0, 2] == pytest.approx(5 * 1)  # ‖w_0‖² (g_0 − g_2)²
    assert cost[2, 0] == pytest.approx(45 * 1)


def test_what_is_added_behind_a_gain_counts_as_it_is():
    weights, kernels = gram(np.eye(3)), gram(np.full((3, 1), 0.0))
    behind = gram(np.array([[1.0], [1.0], [5.0]]))
    cost = compare([Stage(weights, kernels), Stage(behind)], factors="one").cost
    assert cost[0, 1] == pytest.approx(0)  # nothing of the weights comes through
    assert cost[0, 2] == pytest.approx(16)


def test_refuses_stages_of_different_units():
    with pytest.raises(ValueError, match="different numbers of units"):
        compare([Stage(np.eye(3), np.eye(2))], factors="one")
    with pytest.raises(ValueError, match="different numbers of units"):
        compare([], factors="one")


def naive(rows, outgoing, most, factors):
    """The algorithm as the paper has it: all saliencies anew at each step."""
    outgoing, alive, gone = outgoing.copy(), list(range(len(rows))), []
    for _ in range(most):
        tried = []
        for one in alive:
            for other in alive:
                if one != other:
                    factor = best_factor(rows[one], rows[other], factors)
                    distance = np.square(rows[one] - factor * rows[other]).sum()
                    tried.append((np.square(outgoing[one]).sum() * distance, one, other, factor))
        saliency, one, other, factor = min(tried)
        outgoing[other] += factor * outgoing[one]
        alive.remove(one)
        gone.append((one, other, saliency))
    return gone


@given(seed=SEEDS, count=COUNTS, factors=st.sampled_from(["one", "positive", "any"]))
def test_chooses_the_least_saliency_at_each_step(seed, count, factors):
    rows, outgoing = random_rows(seed, count, 3), random_rows(seed + 1, count, 2)
    merges = choose(compare([Stage(gram(rows))], factors=factors), gram(outgoing), most=count - 1)
    expected = naive(rows, outgoing, count - 1, factors)
    assert [each.removed for each in merges] == [one for one, _, _ in expected]
    saliencies = [each.saliency for each in merges]
    np.testing.assert_allclose(saliencies, [saliency for _, _, saliency in expected], rtol=1e-6, atol=1e-9)


def test_a_limit_of_zero_lets_only_equal_twins_go():
    rows = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1.001]])
    pairs = compare([Stage(gram(rows))], factors="one")
    (merge,) = choose(pairs, gram(np.ones((4, 1))), most=3, limit=0.0)
    assert {merge.removed, merge.twin} == {0, 2}
    assert (merge.saliency, merge.difference, merge.factor) == (0, 0, 1)
    assert len(choose(pairs, gram(np.ones((4, 1))), most=3, limit=0.01)) == 2


def test_one_large_unit_does_not_let_all_others_go():
    rows = np.diag([1000.0, 1.0, 1.0, 1.0])
    assert choose(compare([Stage(gram(rows))], factors="one"), np.eye(4), most=3, limit=0.1) == []


def test_removes_what_is_nothing_where_that_stays_nothing():
    rows = np.array([[1.0, 0], [0, 1], [0, 0]])
    assert choose(compare([Stage(gram(rows))], factors="one"), np.eye(3), most=2, limit=0.0) == []
    (merge,) = choose(compare([Stage(gram(rows))], factors="positive"), np.eye(3), most=2, limit=0.0)
    assert (merge.removed, merge.factor) == (2, 0)


@pytest.mark.parametrize("most", [-1, 3])
def test_refuses_to_remove_all_units(most):
    with pytest.raises(ValueError, match="of 3 units cannot go"):
        choose(compare([Stage(np.eye(3))], factors="one"), np.eye(3), most=most)


def test_refuses_other_numbers_of_units():
    with pytest.raises(ValueError, match="2 units give something, 3 are compared"):
        choose(compare([Stage(np.eye(3))], factors="one"), np.eye(2), most=1)


@given(seed=SEEDS, count=COUNTS, slices=st.integers(1, 3), axis=st.integers(0, 1))
def test_the_next_layer_gives_the_same_of_exact_multiples(seed, count, slices, axis):
    """All units are multiples of one; whichever go, the sum over those that are left is the same."""
    random = np.random.default_rng(seed)
    base, multiples = random.standard_normal(slices), random.uniform(0.5, 2, count)
    merges = choose(
        compare([Stage(gram(multiples[:, None] * base))], factors="positive"), np.eye(count), most=count - 1, limit=1e-5
    )
    assert len(merges) == count - 1
    indices = random.permutation(count * slices).reshape(count, slices)
    values = np.zeros(count * slices)
    values[indices] = multiples[:, None] * base
    weight = random.standard_normal((4, count * slices))
    given_weight = weight if axis else weight.T
    before = given_weight.copy()
    found = carry_out(given_weight, merges, axis=axis, indices=indices)
    np.testing.assert_array_equal(given_weight, before)
    np.testing.assert_allclose((found if axis else found.T) @ values, weight @ values, rtol=1e-6, atol=1e-9)
    for each in merges:
        assert not np.take(found, indices[each.removed], axis=axis).any()


def test_keeps_the_dtype_and_copies_where_nothing_goes():
    weight = np.ones((2, 3), np.float16)
    found = carry_out(weight, [], axis=1, indices=np.arange(3)[:, None])
    assert found.dtype == np.float16
    assert found is not weight
    np.testing.assert_array_equal(found, weight)
