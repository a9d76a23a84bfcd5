import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels.merging import carry_out, choose
from onnxpress.passes.kernels.pairs import Stage, compare
from onnxpress.passes.kernels.products import Rows

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
    merges = choose(compare([Stage(rows_of(rows))], factors=factors), rows_of(outgoing), most=count - 1)
    expected = naive(rows, outgoing, count - 1, factors)
    assert [each.removed for each in merges] == [one for one, _, _ in expected]
    saliencies = [each.saliency for each in merges]
    np.testing.assert_allclose(saliencies, [saliency for _, _, saliency in expected], rtol=1e-6, atol=1e-9)


def test_a_limit_of_zero_lets_only_equal_twins_go():
    rows = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1.001]])
    pairs = compare([Stage(rows_of(rows))], factors="one")
    (merge,) = choose(pairs, rows_of(np.ones((4, 1))), most=3, limit=0.0)
    assert {merge.removed, merge.twin} == {0, 2}
    assert (merge.saliency, merge.difference, merge.factor) == (0, 0, 1)
    assert len(choose(pairs, rows_of(np.ones((4, 1))), most=3, limit=0.01)) == 2


def test_one_large_unit_does_not_let_all_others_go():
    rows = np.diag([1000.0, 1.0, 1.0, 1.0])
    assert choose(compare([Stage(rows_of(rows))], factors="one"), rows_of(np.eye(4)), most=3, limit=0.1) == []


def test_removes_what_is_nothing_where_that_stays_nothing():
    rows = np.array([[1.0, 0], [0, 1], [0, 0]])
    assert choose(compare([Stage(rows_of(rows))], factors="one"), rows_of(np.eye(3)), most=2, limit=0.0) == []
    (merge,) = choose(compare([Stage(rows_of(rows))], factors="positive"), rows_of(np.eye(3)), most=2, limit=0.0)
    assert (merge.removed, merge.factor) == (2, 0)


@pytest.mark.parametrize("most", [-1, 3])
def test_refuses_to_remove_all_units(most):
    with pytest.raises(ValueError, match="of 3 units cannot go"):
        choose(compare([Stage(rows_of(np.eye(3)))], factors="one"), rows_of(np.eye(3)), most=most)


def test_refuses_other_numbers_of_units():
    with pytest.raises(ValueError, match="2 units give something, 3 are compared"):
        choose(compare([Stage(rows_of(np.eye(3)))], factors="one"), rows_of(np.eye(2)), most=1)


@given(seed=SEEDS, count=COUNTS, slices=st.integers(1, 3), axis=st.integers(0, 1))
def test_the_next_layer_gives_the_same_of_exact_multiples(seed, count, slices, axis):
    """All units are multiples of one; whichever go, the sum over those that are left is the same."""
    random = np.random.default_rng(seed)
    base, multiples = random.standard_normal(slices), random.uniform(0.5, 2, count)
    merges = choose(
        compare([Stage(rows_of(multiples[:, None] * base))], factors="positive"),
        rows_of(np.eye(count)),
        most=count - 1,
        limit=1e-5,
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
