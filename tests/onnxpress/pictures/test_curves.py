"""Curves of sensitivity as a picture."""

import math

from onnxpress.passes.report import Curve
from onnxpress.pictures.curves import draw
from onnxpress.sensitivity import Family


def family(*curves, title="any"):
    return Family(title, "channels", "outputs", curves)


def test_names_the_most_sensitive_ones():
    text = draw(family(*(Curve(f"<b>{k}", "channels", (0.1, 0.5), (30.0, 20.0 + k), "outputs") for k in range(30))))
    assert text.count('class="tone') == 10
    assert text.count('class="rest"') == 20
    assert "20 less sensitive ones" in text
    assert "&lt;b&gt;9<" in text
    assert "&lt;b&gt;10<" not in text
    assert "<b>" not in text


def test_curves_without_two_points_are_not_drawn():
    assert draw(family(Curve("a", "channels", (0.0,), (math.inf,), "layer"))) == ""
    assert draw(family()) == ""


def test_one_point_without_loss_does_not_press_the_others_flat():
    def drawn(error):
        return draw(
            family(*(Curve(k, "channels", (0.1, 0.2), (e, 20.0), "outputs") for k, e in (("a", error), ("b", 9))))
        )

    assert drawn(170.0) == drawn(60.0) != drawn(50.0)
