"""A budget says what is wanted, or which field of it means nothing."""

import math

import pytest

from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.budget import MIN_SQNR, Budget, goal_of


@pytest.mark.parametrize(
    ("goal", "limit", "before", "times"),
    [
        ("size", "4x", 100.0, 4.0),
        ("size", "3MB", 12e6, 4.0),
        ("size", 1000, 4000.0, 4.0),
        ("memory", "1 GiB", 2.0**31, 2.0),
        ("latency", "5ms", 10.0, 2.0),
        ("latency", "0.5 s", 1000.0, 2.0),
        ("latency", 4, 10.0, 2.5),
        ("size", None, 1.0, None),
    ],
)
def test_a_limit_is_so_many_times_better_than_the_input(goal, limit, before, times):
    assert Budget(goal=goal, limit=limit).times(before) == times


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("goal", "speed"),
        ("max_drop", -0.1),
        ("max_drop", math.nan),
        ("min_sqnr", math.inf),
        ("confidence", 1.0),
        ("time_limit", 0),
        ("limit", "4 apples"),
        ("limit", "0x"),
        ("limit", -3),
        ("limit", True),
        ("limit", "5ms"),
        ("limit", "1.2.3MB"),
    ],
)
def test_refuses_what_means_nothing_and_names_it(field, value):
    with pytest.raises(ConfigError, match=f"^{field} "):
        Budget(**{"goal": "size", field: value})


def test_outputs_keep_20_db_where_nothing_else_is_said():
    assert Budget(goal="size").sqnr == MIN_SQNR == 20
    assert Budget(goal="size", max_drop=0.01).sqnr is None
    assert Budget(goal="size", max_drop=0.01, min_sqnr=5).sqnr == 5


def test_a_goal_by_name():
    assert [goal_of(each) for each in ("size", "latency", "memory", None)] == ["size", "latency", "memory", None]
    with pytest.raises(ConfigError, match="goal 'speed': give size, latency, memory"):
        goal_of("speed")
