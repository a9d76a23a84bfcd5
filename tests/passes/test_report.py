"""What passes put on record."""

import math

import pytest

from onnxpress.passes.report import Curve, Report


def test_a_curve_has_an_error_for_each_ratio():
    curve = Curve("a", "channels", (0.0, 0.25), (math.inf, 20.0), "outputs")
    report = Report("prune-channels", curves=[curve])
    assert report.curves[0].errors[1] == 20.0
    assert Report("encode").curves == []


@pytest.mark.parametrize(
    ("ratios", "errors", "why"),
    [
        ((0.1, 0.2), (1.0,), "a: 2 ratios, but 1 errors"),
        ((0.2, 0.1), (1.0, 2.0), "must ascend"),
        ((0.1, 0.1), (1.0, 2.0), "must ascend"),
        ((0.5, 1.5), (1.0, 2.0), r"within \[0, 1\]"),
        ((-0.5, 0.5), (1.0, 2.0), r"within \[0, 1\]"),
        ((math.nan,), (1.0,), r"within \[0, 1\]"),
        ((0.5,), (math.nan,), "no number"),
    ],
)
def test_refuses_curves_that_mean_nothing(ratios, errors, why):
    with pytest.raises(ValueError, match=why):
        Curve("a", "channels", ratios, errors, "layer")
