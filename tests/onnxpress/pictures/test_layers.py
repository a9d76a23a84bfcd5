"""What all passes together did to each layer."""

import math
import re

import pytest

from onnxpress.passes.report import Report
from onnxpress.pictures import layers
from onnxpress.pictures.layers import Layer, table


def test_sums_up_what_passes_did_to_a_site():
    first, second = Report("share"), Report("encode")
    first.change("a", "shared", bytes_before=100, bytes_after=100, error=0.3)
    second.change("a", "encoded", bytes_before=100, bytes_after=20, error=0.4)
    second.change("b", "encoded", bytes_before=500, bytes_after=50)
    second.change("graph", "3 nodes folded")
    assert layers.layers([first, second]) == [
        Layer("b", 500, 50, None, [("encode", "encoded")]),
        Layer("a", 100, 20, pytest.approx(0.5), [("share", "shared"), ("encode", "encoded")]),
        Layer("graph", None, None, None, [("encode", "3 nodes folded")]),
    ]


def test_cells_carry_what_they_are_sorted_by():
    text = table([Layer("<a>", 1500, 100, 0.25, [("p", "<did>")])])
    assert re.findall(r'data-v="([^"]*)">([^<]*)', text) == [
        ("1500", "1.50 kB"),
        ("100", "100 B"),
        ("15", "15.0×"),
        ("0.25", "25.00%"),
    ]
    assert "<a>" not in text
    assert "<did>" not in text


@pytest.mark.parametrize(("error", "key"), [(math.nan, ""), (math.inf, "Infinity"), (None, "")])
def test_errors_that_are_no_number_do_no_harm(error, key):
    text = table([Layer("a", 10, 5, error), Layer("b", 0, 0, 0.5)])
    assert re.findall(r'data-v="([^"]*)"', text)[3] == key
    assert "nan%;" not in text
    assert 'width="nan' not in text


def test_many_layers_are_summed_up(monkeypatch):
    monkeypatch.setattr(layers, "MOST", 2)
    text = table([Layer(str(k), 10, 5) for k in range(5)])
    assert "3 smaller layers" in text
    assert text.count("<tr>") == 1 + 3
