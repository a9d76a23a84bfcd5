"""A route is climbed by halving the step, and has somewhat gentler plans in reserve."""

from dataclasses import replace

import pytest

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.search.climbing import Climb
from onnxpress.search.plans import Plan, Route
from onnxpress.search.trial import Trial


def route(first=0.5, steps=5):
    return Route("r", lambda at: Plan(str(at), (ShareKMeans(error=0.01 + at / 2),)), first, steps)


def trial(plan, outcome):
    return Trial(name=plan.name, key=plan.key, passes=(), outcome=outcome)


def climbed(climb, limit):
    """Strengths that are tried where everything above `limit` loses too much."""
    found = []
    while (plan := climb.next) is not None:
        found.append(float(plan.name))
        climb.take(trial(plan, "lossy" if found[-1] > limit else "accepted"))
    return found


@pytest.mark.parametrize("limit", [0.03, 0.3, 0.52, 0.99])
def test_closes_in_on_what_is_just_good_enough(limit):
    found = climbed(Climb(route(steps=8)), limit)
    assert len(found) == 8
    assert abs(found[-1] - limit) < 1 / 2**7
    assert len(set(found)) == len(found)


def test_ends_where_nothing_new_comes():
    assert climbed(Climb(Route("r", lambda at: Plan("0.5", (Encode(),)), 0.5, 5)), 1.0) == [0.5]


def test_promises_what_plans_beside_the_next_gained():
    climb = Climb(route())
    assert climb.promise == float("inf")
    climb.take(replace(trial(climb.next, "accepted"), gain=4.0))
    assert climb.promise == 4.0  # of a stronger one nothing else is known
    climb.take(replace(trial(climb.next, "lossy"), gain=8.0))
    assert climb.promise == 6.0
    assert climb.most == 8.0


def test_nothing_bounds_a_plan_that_is_stronger_than_all_before():
    climb = Climb(route())
    assert climb.most == float("inf")
    climb.take(replace(trial(climb.next, "accepted"), gain=4.0))
    assert climb.most == float("inf")


def test_ends_where_a_plan_fails():
    climb = Climb(route())
    climb.take(trial(climb.next, "failed"))
    assert climb.next is None


def test_gentler_plans_are_those_below_one_that_was_tried():
    climb = Climb(route())
    plan = climb.next
    climb.take(trial(plan, "accepted"))
    gentler = [float(each.name) for each in climb.gentler(plan.key)]
    assert len(gentler) == 2
    assert 0.5 > gentler[0] > gentler[1] > 0.3


def test_gentler_plans_that_were_tried_are_none():
    climb = Climb(route(first=0.05))
    plan = climb.next
    climb.take(trial(plan, "lossy"))
    assert [each.name for each in climb.gentler(plan.key)] == ["0.0"]
    climb = Climb(route(first=0.0))
    plan = climb.next
    climb.take(trial(plan, "lossy"))
    assert climb.gentler(plan.key) == []
