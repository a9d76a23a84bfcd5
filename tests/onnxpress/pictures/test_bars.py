"""The waterfall of what each pass gained."""

import re

from onnxpress.pictures.bars import change, waterfall
from onnxpress.stages import Stage


def bars(text):
    found = re.findall(r'<rect class="(\w+)" x="([\d.]+)%" y="5" width="([\d.]+)%"', text)
    return [(kind, float(x), float(width)) for kind, x, width in found]


def test_bars_hang_between_what_was_and_what_is():
    stages = [Stage("prune", 800, 1.0), Stage("<pad>", 900, 1.0), Stage("encode", 200, 1.0)]
    text = waterfall(1000, stages, delivered=200)
    assert bars(text) == [
        ("was", 0, 100),
        ("gain", 80, 20),
        ("loss", 80, 10),
        ("gain", 20, 70),
        ("is", 0, 20),
    ]
    assert "&lt;pad&gt;" in text
    assert "−20.0 %" in text
    assert "5.0× smaller" in text


def test_speed_has_a_column_where_it_was_measured():
    assert "1.50×" in waterfall(10, [Stage("a", 5, 1.0, 1.5), Stage("b", 5, 1.0)], delivered=5)
    assert "speed" not in waterfall(10, [Stage("a", 5, 1.0)], delivered=5)


def test_says_where_another_model_was_delivered():
    assert "an earlier model" in waterfall(10, [Stage("a", 15, 1.0)], delivered=10, earlier=True)
    assert "an earlier model" not in waterfall(10, [Stage("a", 8, 1.0)], delivered=7)  # stored under another name


def test_a_step_without_gain_can_still_be_seen():
    assert bars(waterfall(10, [Stage("a", 10, 1.0)], delivered=10))[1] == ("gain", 99.8, 0.2)


def test_changes_in_words():
    assert (change(10, 10), change(1000, 1100), change(10**6, 10**6 - 7)) == ("same", "+10.0 %", "−7 B")
