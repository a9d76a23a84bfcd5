import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.encode.choose import Limits, choose
from onnxpress.passes.encode.loads import Load
from onnxpress.passes.encode.options import Option
from onnxpress.passes.encode.plans import Plan

PLAN = Plan("plain", 4)


def option(nbytes, *needs, load=0, seconds=0.0):
    return Option(PLAN, nbytes, frozenset(needs), Load(load, seconds))


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


@pytest.mark.parametrize(
    ("most", "expected"), [(300, [2, 2]), (299, [1, 2]), (200, [1, 2]), (150, [1, 1]), (99, [1, 0])]
)
def test_memory_goes_where_it_saves_most(most, expected):
    choices = [
        [Option(None, 1000), option(400, load=50), option(395, load=150)],
        [Option(None, 1000), option(800, load=50), option(500, load=150)],
    ]
    assert choose(choices, costs={}, limits=Limits(most)) == [
        each[i] for each, i in zip(choices, expected, strict=True)
    ]


def test_a_shared_part_is_not_paid_for_by_those_that_have_no_memory():
    choices = [[Option(None, 100), option(50, load=10), option(40, "a", load=100)] for _ in range(3)]
    assert choose(choices, costs={"a": 20}) == [each[2] for each in choices]
    assert choose(choices, costs={"a": 20}, limits=Limits(299)) == [each[1] for each in choices]


@pytest.mark.parametrize(
    ("memory", "seconds", "expected"),
    [
        (1e9, 1.0, [2, 2]),
        (1e9, 0.5, [2, 1]),
        (300, 1.0, [1, 2]),
        (300, 0.9, [1, 2]),
        (300, 0.7, [1, 1]),
        (60, 1.0, [1, 0]),
        (1e9, 0.0, [0, 0]),
    ],
)
def test_both_memory_and_time_are_kept(memory, seconds, expected):
    choices = [
        [Option(None, 1000), option(400, load=50, seconds=0.2), option(390, load=200, seconds=0.2)],
        [Option(None, 1000), option(800, load=50, seconds=0.2), option(500, load=150, seconds=0.6)],
    ]
    chosen = choose(choices, costs={}, limits=Limits(memory, seconds))
    assert chosen == [each[i] for each, i in zip(choices, expected, strict=True)]


@given(st.data())
def test_limits_hold_whatever_the_options(data):
    numbers, seconds = st.integers(0, 200), st.floats(0, 1)
    choices = [
        [
            Option(None, 200),
            *(option(data.draw(numbers), load=data.draw(numbers), seconds=data.draw(seconds)) for _ in "ab"),
        ]
        for _ in range(3)
    ]
    limits = Limits(data.draw(numbers), data.draw(seconds))
    assert not limits.exceeded(choose(choices, costs={}, limits=limits))


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
