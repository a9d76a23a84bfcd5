"""Axes name round values and place any."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.pictures.scales import Axis, Scale, across, down, plot

finite = st.floats(-1e12, 1e12, allow_nan=False)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(finite, min_size=1, max_size=9), st.booleans())
def test_all_values_stand_inside_with_few_ticks(values, log):
    scale = Scale.over(values, log=log)
    assert all(0 <= scale.at(each) <= 1 for each in values)
    ticks = scale.ticks(5)
    assert len(ticks) <= 7
    assert ticks == sorted(ticks)


def test_ticks_are_round():
    assert Scale(0.0, 0.42).ticks(5) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert Scale(18.0, 900.0, log=True).ticks(6) == [20.0, 50.0, 100.0, 200.0, 500.0]
    assert Scale(1.0, 1e9, log=True).ticks(4) == [1.0, 1e3, 1e6, 1e9]


def test_only_what_lies_far_apart_is_logarithmic():
    assert not Scale.over([1.0, 2.0], log=True).log
    assert Scale.over([1.0, 100.0], log=True).log
    assert not Scale.over([0.0, 100.0], log=True).log


@pytest.mark.parametrize("values", [[], [math.nan, math.inf], [3.0], [0.0, 0.0]])
def test_has_room_whatever_there_is(values):
    scale = Scale.over(values)
    assert scale.high > scale.low
    assert scale.ticks()


def test_beyond_the_ends_is_the_end():
    assert (across(Scale(0, 1), 9.0), down(Scale(0, 1), -math.inf)) == ("100.00%", 280.0)


def test_a_plot_names_its_axes():
    axis = Axis(Scale(0, 1), "this", "{:g}".format)
    text = plot("<g/>", axis, axis, told="drawn")
    assert text.count("this") == 2
    assert 'aria-label="drawn"' in text
