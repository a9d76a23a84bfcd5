"""The order of columns in which N:M groups keep most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.permutation import group_order, kept_by_groups
from onnxpress.passes.kernels.pruning import nm_mask


def scores(seed, rows, k):
    """Some columns are worth much more than others, in some rows more than in others."""
    draw = np.random.default_rng(seed)
    return np.square(draw.standard_normal((rows, k)) * np.exp(draw.standard_normal(k)))


SHAPES = {
    "rows": st.integers(1, 12),
    "k": st.integers(0, 37),
    "pattern": st.sampled_from([(2, 4), (1, 4), (3, 5), (4, 8)]),
}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), **SHAPES)
def test_no_order_is_worse_than_the_given_one(seed, rows, k, pattern):
    given_scores, (keep, group) = scores(seed, rows, k), pattern
    order = group_order(given_scores, keep=keep, group=group, seed=seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(k))
    whole = k // group * group
    np.testing.assert_array_equal(order[whole:], np.arange(whole, k))
    before, after = (kept_by_groups(each, keep=keep, group=group) for each in (given_scores, given_scores[:, order]))
    assert after >= before * (1 - 1e-12)  # sums of doubles in another order


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), **SHAPES)
def test_counts_what_the_mask_keeps(seed, rows, k, pattern):
    given_scores, (keep, group) = scores(seed, rows, k), pattern
    mask = nm_mask(given_scores, keep=keep, group=group, axis=1)
    # sums of doubles in another order
    np.testing.assert_allclose(
        kept_by_groups(given_scores, keep=keep, group=group), given_scores[mask].sum(), rtol=1e-12
    )


def test_finds_the_best_order_where_there_is_one_that_loses_nothing():
    """Half of the columns are empty, and lie together."""
    full = np.concatenate([scores(0, 6, 20), np.zeros((6, 20))], axis=1)
    order = group_order(full, keep=2, group=4)
    assert kept_by_groups(full[:, order], keep=2, group=4) == pytest.approx(full.sum(), rel=1e-12)
    assert kept_by_groups(full, keep=2, group=4) < 0.95 * full.sum()


def test_the_same_seed_gives_the_same_order():
    first, second = (group_order(scores(1, 9, 64), keep=2, group=4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_scores_of_any_size_give_the_same_order():
    some = scores(2, 9, 32)
    np.testing.assert_array_equal(group_order(some, keep=2, group=4), group_order(1e60 * some, keep=2, group=4))


@pytest.mark.parametrize("k", [0, 3, 4, 7])
def test_fewer_than_two_groups_stay(k):
    np.testing.assert_array_equal(group_order(scores(0, 5, k), keep=2, group=4), np.arange(k))


def test_scores_without_worth_and_patterns_that_keep_all_stay():
    np.testing.assert_array_equal(group_order(np.zeros((3, 16)), keep=2, group=4), np.arange(16))
    np.testing.assert_array_equal(group_order(scores(0, 3, 16), keep=4, group=4), np.arange(16))


@pytest.mark.parametrize(
    ("wrong", "keep", "told"),
    [
        (np.ones((2, 8)), 0, "keep"),
        (np.ones((2, 8)), 5, "keep"),
        (np.ones(8), 2, "matrix"),
        (-np.ones((2, 8)), 2, "not negative"),
        (np.full((2, 8), np.nan), 2, "not negative"),
        (np.full((2, 8), np.inf), 2, "not negative"),
    ],
)
def test_refuses_what_cannot_be_judged(wrong, keep, told):
    for ask in (group_order, kept_by_groups):
        with pytest.raises(ValueError, match=told):
            ask(wrong, keep=keep, group=4)
