"""The trials of a search as a picture."""

import math

import pytest

from onnxpress.pictures.front import Start, best, draw
from onnxpress.search.trial import Trial

START = Start(1000, "top1", 0.9, None)


def trial(name, nbytes, metric, *, outcome="accepted", **fields):
    return Trial(name=name, key=name, passes=(), outcome=outcome, nbytes=nbytes, metric=metric, **fields)


def test_the_front_is_what_nothing_beats_in_both():
    points = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 2.5), (4.0, 4.0)]
    assert best(points, less=True) == [(1.0, 1.0), (2.0, 3.0), (4.0, 4.0)]
    assert best(points, less=False) == [(4.0, 4.0)]
    assert best([], less=True) == []


def test_marks_the_delivered_one_and_escapes_names():
    made = trial("<b>int8</b>", 100, 0.89)
    text = draw([made, trial("lost", 50, 0.5, outcome="lossy", reason="it <fell>")], START, floor=0.88, made=made)
    assert text.count('<circle class="made"') == 1
    assert text.count('<circle class="off"') == 1
    assert "&lt;b&gt;int8" in text
    assert "it &lt;fell&gt;" in text
    assert "<b>" not in text


def test_draws_speed_only_where_it_was_measured():
    slow = [trial("a", 100, 0.8), trial("b", 200, 0.9)]
    fast = [trial("a", 100, 0.8, speedup=2.0), trial("b", 200, 0.9, speedup=3.0)]
    assert draw(slow, START, floor=None, made=None).count("<figure>") == 1
    assert draw(fast, START, floor=None, made=None).count("<figure>") == 2


def test_without_a_metric_trials_are_placed_by_sqnr():
    some = [trial("a", 100, None, sqnr=math.inf), trial("b", 200, None, sqnr=20.0), trial("c", 1, None, sqnr=math.nan)]
    text = draw(some, Start(1000, "", None, None), floor=0.5, made=None)
    assert text.count('<circle class="kept"') == 2
    assert "SQNR, dB" in text
    assert "limit" not in text


@pytest.mark.parametrize("trials", [[], [trial("failed", 0, None, outcome="failed", reason="it does not run")]])
def test_too_few_trials_are_only_listed(trials):
    text = draw(trials, START, floor=None, made=None)
    assert "<figure>" not in text
    assert text.count("<tr>") == 1 + len(trials)
    assert "0 B" not in text


def test_a_metric_that_is_no_number_is_not_drawn():
    text = draw(
        [trial("a", 1, math.nan), trial("b", 2, math.nan)], Start(9, "m", math.nan, None), floor=None, made=None
    )
    assert "<figure>" not in text
    assert "NaN" not in text
