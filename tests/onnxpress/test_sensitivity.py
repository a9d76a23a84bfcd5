"""Curves of error against ratio are compared, ranked and shown."""

import math

import pytest

from onnxpress import sensitivity
from onnxpress.passes.report import Curve, Report


def curve(site, errors, *, ratios=(0.25, 0.5, 0.75), unit="channels", where="outputs"):
    return Curve(site, unit, ratios, tuple(errors), where)


def report(*curves, name="prune-channels"):
    return Report(name, curves=list(curves))


def test_shows_the_most_sensitive_first():
    (shown,) = sensitivity.table([report(curve("a", (30, 20, 10)), curve("b", (math.inf, 12.04, 6)))])
    assert shown.columns == ("site", ">0.25", ">0.5", ">0.75")
    assert shown.rows == [["b", "equal", "12.0 dB", "6.0 dB"], ["a", "30.0 dB", "20.0 dB", "10.0 dB"]]
    assert shown.title == "prune-channels: SQNR of the worst output of the model at parts of channels removed"
    assert ["before it" in note for note in shown.notes] == [True]


def test_only_what_can_be_compared_stands_in_one_table():
    first = report(curve("a", (3, 2, 1)), curve("b", (3, 2, 1), unit="heads"))
    second = report(curve("a", (3, 2, 1), unit="sparsity", where="layer"), name="prune-magnitude")
    titles = [each.title for each in sensitivity.table([first, second, Report("encode")])]
    assert titles == [
        "prune-channels: SQNR of the worst output of the model at parts of channels removed",
        "prune-channels: SQNR of the worst output of the model at parts of heads removed",
        "prune-magnitude: SQNR of the output of the layer at parts of weights set to zero",
    ]
    assert sensitivity.table([Report("encode")]) == []


def test_many_ratios_are_read_off_at_a_few():
    fine = tuple(k / 20 for k in range(15))
    (shown,) = sensitivity.table([report(curve("a", [math.inf, *range(40, 26, -1)], ratios=fine))])
    assert shown.columns == ("site", ">0.1", ">0.25", ">0.5")
    assert shown.rows == [["a", "39.0 dB", "36.0 dB", "31.0 dB"]]
    assert "linear" in shown.notes[-1]


def test_what_was_not_measured_stays_empty():
    narrow = curve("b", (9, 8), ratios=(0.25, 0.5))
    (shown,) = sensitivity.table([report(curve("a", (30, 20, 10)), narrow)])
    assert shown.rows[0] == ["b", "9.0 dB", "8.0 dB", ""]


def test_says_how_many_are_not_shown():
    (shown,) = sensitivity.table([report(*(curve(str(k), (k, k, k)) for k in range(5)))], most=2)
    assert [row[0] for row in shown.rows] == ["0", "1"]
    assert shown.notes[-1] == "and 3 less sensitive ones, in the report (--json)"


def test_between_ratios_the_relative_error_is_linear():
    found = curve("a", (math.inf, 20.0), ratios=(0.0, 0.5))
    assert sensitivity.at(found, 0.0) == math.inf
    assert sensitivity.at(found, 0.25) == pytest.approx(26.02, abs=0.01)  # half of a tenth
    assert sensitivity.at(found, 0.5) == pytest.approx(20.0, abs=1e-9)
    assert sensitivity.at(found, 0.6) is None
    assert sensitivity.at(curve("a", (-math.inf, 0.0), ratios=(0.1, 0.2)), 0.2) == pytest.approx(0, abs=1e-9)
    assert sensitivity.at(curve("a", (), ratios=()), 0.5) is None
    assert sensitivity.families([report(curve("a", (), ratios=()))]) == []


def test_curves_measured_at_other_ratios_are_ranked_too():
    late, early = curve("late", (5.0,), ratios=(0.9,)), curve("early", (4.0,), ratios=(0.1,))
    middle = curve("middle", (6.0, 3.0), ratios=(0.4, 0.5))
    assert [each.site for each in sensitivity.ranked([late, early, middle])] == ["early", "middle", "late"]
    assert sensitivity.ranked([]) == ()
