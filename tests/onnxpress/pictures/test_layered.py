"""Small graphs in layers."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.pictures.layered import HIGH, WIDE, Box, Sketch, draw, width


def sketch(count, lines):
    found = Sketch([Box(f"op{k}", "", "near", "") for k in range(count)])
    for line in lines:
        found.join(*line)
    return found


def places(text):
    return [(float(x), float(y)) for x, y in re.findall(r'<svg x="([\d.-]+)" y="([\d.-]+)"', text)]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 9), st.data())
def test_boxes_never_overlap_and_lines_lead_downward(count, data):
    pairs = [(a, b) for b in range(count) for a in range(b)]
    lines = data.draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    text = draw(sketch(count, lines), told="x")
    found = places(text)
    assert len(found) == count
    for k, (x, y) in enumerate(found):
        assert x >= 0
        assert all(abs(x - x2) >= WIDE or abs(y - y2) >= HIGH for x2, y2 in found[:k])
    assert all(found[a][1] < found[b][1] for a, b in lines)


def test_a_chain_is_a_column():
    found = places(draw(sketch(3, [(0, 1), (1, 2)]), told="x"))
    assert len({x for x, _ in found}) == 1
    assert width(sketch(3, [(0, 1), (1, 2)])) == WIDE + 4


def test_a_line_over_layers_goes_around_the_boxes_between():
    text = draw(sketch(3, [(0, 1), (1, 2), (0, 2)]), told="x")
    (middle,) = [x for x, y in places(text) if 2 < y < 2 * HIGH + 30]
    bend = float(re.findall(r"([\d.]+) [\d.]+V", text)[0])
    assert not middle <= bend <= middle + WIDE


def test_a_source_stands_right_above_what_reads_it():
    found = places(draw(sketch(4, [(0, 1), (1, 3), (2, 3)]), told="x"))
    assert found[2][1] == found[1][1]


def test_escapes_and_cuts_long_names():
    text = draw(Sketch([Box("<op>" + "x" * 99, "<d>", "is", '"<t>"')]), told="x")
    assert not {"<op>", "<d>", "<t>", "x" * 30} & set(re.findall(r"<op>|<d>|<t>|x{30}", text))
    assert "&quot;&lt;t&gt;&quot;" in text


def test_nothing_is_drawn_as_nothing():
    assert places(draw(Sketch(), told="x")) == []
