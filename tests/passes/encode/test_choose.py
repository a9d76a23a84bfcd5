import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.encode.choose import choose
from onnxpress.passes.encode.plans import Option, Plan

PLAN = Plan("plain", 4)


def option(nbytes, *needs):
    return Option(PLAN, nbytes, frozenset(needs))


def total(chosen, costs):
    return sum(o.nbytes for o in chosen) + sum(costs[n] for n in set().union(*(o.needs for o in chosen)))


def test_takes_the_smallest_of_each():
    choices = [[Option(None, 100), option(40, "a"), option(30, "b")], [Option(None, 100), option(20, "a")]]
    assert choose(choices, costs={"a": 1, "b": 1}) == [choices[0][2], choices[1][1]]


def test_gives_up_a_shared_part_that_costs_more_than_it_saves():
    choices = [[Option(None, 100), option(40, "a"), option(30, "b")], [Option(None, 100), option(20, "a")]]
    assert choose(choices, costs={"a": 1, "b": 11}) == [choices[0][1], choices[1][1]]
    assert choose(choices, costs={"a": 500, "b": 500}) == [choices[0][0], choices[1][0]]


def test_two_parts_that_pay_only_without_each_other_are_not_both_taken():
    choices = [[Option(None, 100), option(50, "a", "b")]]
    assert choose(choices, costs={"a": 30, "b": 30}) == [choices[0][0]]


@pytest.mark.parametrize(("least", "dense"), [(60, False), (61, True)])
def test_a_small_saving_is_no_reason(least, dense):
    choices = [[Option(None, 100), option(40)]]
    assert (choose(choices, costs={}, least=least)[0].plan is None) == dense


def test_no_weights_no_choice():
    assert choose([], costs={}) == []


@given(st.data())
def test_never_larger_than_dense_and_best_with_one_shared_part(data):
    sizes = st.integers(1, 200)
    choices = [
        [Option(None, data.draw(sizes)), option(data.draw(sizes), "a"), option(data.draw(sizes))] for _ in range(4)
    ]
    costs = {"a": data.draw(sizes)}
    best = min(total(each, costs) for each in itertools.product(*choices))
    chosen = total(choose(choices, costs=costs), costs)
    assert chosen <= sum(each[0].nbytes for each in choices)
    # a shared part is given up whole, so one weight that alone would pay for it decides for all: within its cost
    assert chosen <= best + costs["a"]
