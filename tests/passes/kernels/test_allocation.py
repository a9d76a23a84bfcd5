import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.allocation import Option, allocate

modest = settings(deadline=None, derandomize=True, max_examples=150)
# Whole numbers: sums are exact, so brute force and the kernel judge the target alike.
figures = st.integers(0, 60)
items = st.lists(
    st.lists(st.builds(Option, figures, figures), min_size=1, max_size=5),
    min_size=1,
    max_size=5,
)
parts = st.floats(0, 1)


def sums(options, choice):
    taken = [each[number] for each, number in zip(options, choice, strict=True)]
    return sum(each.amount for each in taken), sum(each.error for each in taken)


def best(options, target):
    found = (sums(options, each) for each in itertools.product(*(range(len(each)) for each in options)))
    return min(error for amount, error in found if amount >= target)


def most(options):
    return sum(max(option.amount for option in each) for each in options)


@modest
@given(options=items, part=parts)
def test_reaches_the_target_within_one_step_of_the_optimum(options, part):
    target = part * most(options)
    amount, error = sums(options, allocate(options, target))
    assert amount >= target - 1e-9
    step = max(max(option.error for option in each) - min(option.error for option in each) for each in options)
    assert best(options, target) <= error <= best(options, target) + step


@modest
@given(options=items, price=st.floats(0, 4))
def test_is_exact_for_every_sum_on_the_hulls(options, price):
    # What is best for some price of the amount is best for the amount it has (Everett, 1963).
    priced = [min(each, key=lambda option: option.error - price * option.amount) for each in options]
    target = sum(option.amount for option in priced)
    assert sums(options, allocate(options, target))[1] == best(options, target)


@modest
@given(options=items, part=parts)
def test_no_move_of_one_item_is_better(options, part):
    target = part * most(options)
    chosen = allocate(options, target)
    _, error = sums(options, chosen)
    for item, each in enumerate(options):
        for option in range(len(each)):
            amount, other = sums(options, [*chosen[:item], option, *chosen[item + 1 :]])
            assert amount < target or other >= error


@modest
@given(options=items, part=parts, seed=st.randoms(use_true_random=False))
def test_the_order_of_an_items_options_does_not_matter_on_the_way_to_the_target(options, part, seed):
    shuffled = [seed.sample(each, len(each)) for each in options]
    target = part * most(options)
    assert sums(shuffled, allocate(shuffled, target))[0] >= target - 1e-9
    assert len(allocate(shuffled, target)) == len(options)


def test_prunes_the_insensitive_item_first():
    sensitive = [Option(0, 0), Option(50, 9), Option(100, 40)]
    robust = [Option(0, 0), Option(50, 1), Option(100, 3)]
    assert allocate([sensitive, robust], 50) == [0, 1]
    assert allocate([sensitive, robust], 100) == [0, 2]
    assert allocate([sensitive, robust], 150) == [1, 2]


def test_takes_an_option_off_the_hull_where_it_fits_the_remainder():
    # The hull of the first item steps over its second option, which alone is enough.
    assert allocate([[Option(0, 0), Option(10, 6), Option(100, 10)]], 10) == [1]


def test_gives_back_what_a_large_last_step_made_needless():
    small = [Option(0, 0), Option(1, 1)]
    large = [Option(0, 0), Option(100, 150)]
    assert allocate([small, large], 100) == [0, 1]


def test_nothing_asked_costs_least():
    options = [[Option(3, 2), Option(0, 1), Option(2, 1)], [Option(5, 0)]]
    assert allocate(options, 0) == [2, 0]
    assert allocate(options, -7) == [2, 0]
    assert allocate([], 0) == []


def test_a_target_that_only_rounding_misses_is_reached():
    options = [[Option(0, 0), Option(0.1, 1)] for _ in range(10)]
    assert allocate(options, 1.0) == [1] * 10  # ten times 0.1 add up to 1 - 1e-16


def test_many_items_are_shared_out_by_slope():
    options = [[Option(k, scale * k**2) for k in range(50)] for scale in range(1, 301)]
    chosen = allocate(options, 3000)
    assert sum(chosen) >= 3000
    assert chosen == sorted(chosen, reverse=True)


@pytest.mark.parametrize(
    ("options", "target", "why"),
    [
        ([[Option(1, 1)], []], 0, "without options"),
        ([[Option(1, math.inf)]], 0, "finite"),
        ([[Option(math.nan, 0)]], 0, "finite"),
        ([[Option(1, 0)]], math.inf, "finite"),
        ([[Option(1, 0)], [Option(2, 5)]], 4, "amount to 3, less than the target 4"),
    ],
)
def test_refuses(options, target, why):
    with pytest.raises(ValueError, match=why):
        allocate(options, target)
