"""Which numbers of units are allowed, what they gain, and how quotas are met."""

import numpy as np
import pytest

from onnxpress.passes.prune.amounts import Amounts, Limits, Quota, Sharing, counted, elements
from onnxpress.rewriter.couplings import find_couplings


@pytest.fixture
def groups(model):
    return [group for group in find_couplings(model).groups if group.frozen is None]


@pytest.fixture
def amounts(model, groups):
    return Amounts(model, groups, {"first": 3.0, "second": 2.0, "last": 0.0})


def test_what_is_kept_is_a_multiple(groups):
    group = groups[0]
    assert (group.size, elements(group)) == (8, 1)
    assert Limits(round_to=3).removable(group) == [0, 2, 5]
    assert Limits(round_to=3, min_kept=4).removable(group) == [0, 2]
    assert Limits(most=0.25).removable(group) == [0, 1, 2]
    assert Limits(round_to=16).removable(group) == [0]
    assert Limits().removable(group) == list(range(8))  # one stays


def test_the_nearest_number_is_the_smaller_of_two(groups):
    assert [Limits(round_to=4).nearest(groups[0], wanted) for wanted in (1.9, 2.0, 2.1, 9)] == [0, 0, 4, 4]


def test_weights_between_two_groups_are_counted_once(amounts):
    assert amounts.units([2, 1]) == 3 / 12
    np.testing.assert_allclose(amounts.parameters([2, 1]), 1 - (60 + 6 * 3 + 6) / 120, rtol=1e-12, atol=0)
    np.testing.assert_allclose(amounts.flops([2, 1]), 1 - (60 * 3 + 18 * 2) / (80 * 3 + 32 * 2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("target", ["units", "parameters", "flops"])
def test_one_group_alone_gains_what_it_does_where_the_others_stay(amounts, target):
    gain = getattr(amounts, target)
    for count in (0, 1, 3):
        np.testing.assert_allclose(gain.alone(0, count), gain([count, 0]), rtol=1e-12, atol=0)
        np.testing.assert_allclose(gain.alone(1, count), gain([0, count]), rtol=1e-12, atol=0)
        np.testing.assert_allclose(gain.among([1])([count]), gain([0, count]), rtol=1e-12, atol=0)
        np.testing.assert_allclose(gain.among([1]).alone(0, count), gain([0, count]), rtol=1e-12, atol=0)


def test_of_nothing_nothing_is_gained(model, groups):
    assert Amounts(model, groups).flops([2, 1]) == 0
    assert counted([])([]) == 0


def test_what_cannot_be_met_takes_all_that_may_go(groups):
    sharing = Sharing([Quota(counted(groups), 0.9)], [[0, 2], [0, 1, 3]], [lambda n: n, lambda n: n])
    assert sharing.least([1.0]) == [2, 3]


def test_all_quotas_are_met_at_the_least_error(amounts):
    quotas = [Quota(amounts.units, 3 / 12), Quota(amounts.parameters, 0.3)]
    choices, costs = [list(range(8)), list(range(4))], [lambda n: 1.0 * n, lambda n: 5.0 * n]
    found = Sharing(quotas, choices, costs).least([1.0, 1.0])
    assert all(quota.met(found) for quota in quotas)
    met = [(a, b) for a in choices[0] for b in choices[1] if all(quota.met([a, b]) for quota in quotas)]
    assert sum(cost(n) for cost, n in zip(costs, found, strict=True)) == min(a + 5.0 * b for a, b in met)


def test_each_choice_is_looked_at_once_however_often_it_is_weighed(amounts, monkeypatch):
    asked = []
    alone = type(amounts.units).alone

    def counting(self, group, count):
        asked.append((group, count))
        return alone(self, group, count)

    monkeypatch.setattr(type(amounts.units), "alone", counting)
    sharing = Sharing([Quota(amounts.flops, 0.2)], [list(range(8)), list(range(4))], [float, float])
    for weight in (0.5, 1.0, 2.0):
        sharing.least([weight])
    assert sorted(asked) == [(0, n) for n in range(8)] + [(1, n) for n in range(4)]
