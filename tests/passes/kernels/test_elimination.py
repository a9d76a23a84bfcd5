"""In which order units go, and what that costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.elimination import Reader, compensated, drop, eliminate


def reader(draw, *, units, per_unit, outputs, rest=0):
    """A layer that reads units, whose columns are shuffled, and columns of no unit."""
    width = units * per_unit + rest
    inputs = draw.standard_normal((4 * width, width)) @ draw.standard_normal((width, width))
    columns = draw.permutation(width)[: units * per_unit].reshape(units, per_unit)
    return Reader(draw.standard_normal((outputs, width)), inputs.T @ inputs / len(inputs), columns)


def damped(moment, damping):
    return moment + damping * np.trace(moment) / len(moment) * np.eye(len(moment))


def cost(each, weight, moment):
    difference = each.weight - weight
    return np.einsum("ij,jk,ik->", difference, moment, difference) / each.energy


def dropped(each, gone):
    weight = each.weight.copy()
    weight[:, each.columns[gone].ravel()] = 0
    return weight


shapes = given(st.integers(2, 12), st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.integers(0, 999))


@settings(deadline=None, derandomize=True, max_examples=30)
@shapes
def test_errors_are_those_of_the_best_weights_without_the_units(units, per_unit, outputs, rest, seed):
    draw = np.random.default_rng(seed)
    readers = [reader(draw, units=units, per_unit=per_unit, outputs=outputs, rest=each) for each in (rest, 0)]
    found = eliminate(readers, most=units - 1, damping=0.05)
    assert len(set(found.order.tolist())) == units - 1
    for index, each in enumerate(readers):
        for count in range(units):
            kept = np.setdiff1d(np.arange(units), found.order[:count])
            best = cost(each, compensated(each, kept, damping=0.05), damped(each.moment, 0.05))
            # inverses in float64, of moments whose condition the damping bounds
            np.testing.assert_allclose(found.errors[index, count], best, rtol=1e-6, atol=1e-9)


def test_wide_moments_are_inverted_whole_and_left_as_they_are():
    """More columns than are mirrored at once."""
    each = reader(np.random.default_rng(0), units=600, per_unit=1, outputs=3)
    before, order = each.moment.copy(), np.array([599, 0, 300, 17])
    found = eliminate([each], most=4, damping=0.05, order=order)
    for count in range(5):
        best = compensated(each, np.setdiff1d(np.arange(600), order[:count]), damping=0.05)
        # as above
        np.testing.assert_allclose(found.errors[0, count], cost(each, best, damped(before, 0.05)), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(each.moment, before)


@settings(deadline=None, derandomize=True, max_examples=30)
@shapes
def test_compensation_is_the_least_squares_solution(units, per_unit, outputs, rest, seed):
    draw = np.random.default_rng(seed)
    each = reader(draw, units=units, per_unit=per_unit, outputs=outputs, rest=rest)
    gone = draw.permutation(units)[: units // 2]
    made = compensated(each, np.setdiff1d(np.arange(units), gone), damping=0.01)
    moment = damped(each.moment, 0.01)
    assert not made[:, each.columns[gone].ravel()].any()
    gradient = (made - each.weight) @ moment
    stay = np.setdiff1d(np.arange(made.shape[1]), each.columns[gone])
    np.testing.assert_allclose(gradient[:, stay], 0, rtol=0, atol=1e-8 * np.abs(moment).max())
    assert cost(each, made, moment) <= cost(each, dropped(each, gone), moment) * (1 + 1e-9)


@settings(deadline=None, derandomize=True, max_examples=30)
@shapes
def test_what_is_missing_is_what_dropped_columns_gave(units, per_unit, outputs, rest, seed):
    draw = np.random.default_rng(seed)
    readers = [reader(draw, units=units, per_unit=per_unit, outputs=outputs, rest=each) for each in (rest, 0)]
    found = drop(readers, most=units)
    for index, each in enumerate(readers):
        for count in range(units + 1):
            wanted = cost(each, dropped(each, found.order[:count]), each.moment)
            np.testing.assert_allclose(found.errors[index, count], wanted, rtol=1e-6, atol=1e-9)


def test_each_step_takes_the_cheapest_unit():
    draw = np.random.default_rng(3)
    readers = [reader(draw, units=9, per_unit=2, outputs=4) for _ in range(2)]
    found = eliminate(readers, most=8, damping=0.01)
    for count, unit in enumerate(found.order):
        gone = found.order[:count].tolist()
        left = [each for each in range(9) if each not in gone]
        costs = {}
        for each in left:
            kept = np.setdiff1d(left, [each])
            made = [(r, compensated(r, kept, damping=0.01)) for r in readers]
            costs[each] = sum(cost(r, weight, damped(r.moment, 0.01)) for r, weight in made)
        assert unit == min(costs, key=costs.get)


def test_of_twins_only_one_goes_cheaply():
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((400, 50))
    inputs[:, 31] = inputs[:, 17] + 1e-4 * draw.standard_normal(400)
    each = Reader(draw.standard_normal((8, 50)), inputs.T @ inputs / 400, np.arange(50)[:, np.newaxis])
    found = eliminate([each], most=40, damping=1e-6)
    assert found.order[0] in (17, 31)
    assert {17, 31} - set(found.order[:20].tolist())
    assert found.errors[0, 1] < 1e-6


def test_takes_a_given_order():
    draw = np.random.default_rng(1)
    each, order = reader(draw, units=60, per_unit=1, outputs=3), draw.permutation(60)[:50]
    for found in (eliminate([each], most=50, order=order), drop([each], most=50, order=order)):
        np.testing.assert_array_equal(found.order, order)
    best = eliminate([each], most=50).errors
    assert best[0, 30] < eliminate([each], most=50, order=order).errors[0, 30]


def test_a_unit_that_nobody_weighs_goes_first_and_costs_nothing():
    draw = np.random.default_rng(2)
    each = reader(draw, units=6, per_unit=2, outputs=3)
    weight = dropped(each, [4])
    silent = Reader(weight, each.moment, each.columns)
    for found in (eliminate([silent], most=3), drop([silent], most=3)):
        assert found.order[0] == 4
        np.testing.assert_allclose(found.errors[0, 1], 0, rtol=0, atol=1e-12)


def test_a_reader_that_gives_nothing_does_not_decide():
    draw = np.random.default_rng(2)
    each = reader(draw, units=6, per_unit=1, outputs=3)
    nothing = Reader(np.zeros_like(each.weight), np.zeros_like(each.moment), each.columns)
    np.testing.assert_array_equal(eliminate([each, nothing], most=4).order, eliminate([each], most=4).order)
    np.testing.assert_array_equal(drop([each, nothing], most=4).order, drop([each], most=4).order)


@pytest.mark.parametrize("rank", [eliminate, drop])
def test_refuses_what_cannot_be_ranked(rank):
    draw = np.random.default_rng(0)
    each = reader(draw, units=4, per_unit=1, outputs=2)
    with pytest.raises(ValueError, match="no layer"):
        rank([], most=0)
    with pytest.raises(ValueError, match="5 of 4"):
        rank([each], most=5)
    with pytest.raises(ValueError, match="different units"):
        rank([each, reader(draw, units=3, per_unit=1, outputs=2)], most=1)
    with pytest.raises(ValueError, match="no numbers"):
        rank([Reader(each.weight, each.moment * np.nan, each.columns)], most=1)


def test_refuses_moments_without_inverse():
    each = Reader(np.ones((1, 2)), np.array([[1.0, 2], [2, 1]]), np.arange(2)[:, np.newaxis])
    with pytest.raises(ValueError, match="no inverse"):
        eliminate([each], most=1)
    with pytest.raises(ValueError, match="no inverse"):
        compensated(each, np.arange(2))
