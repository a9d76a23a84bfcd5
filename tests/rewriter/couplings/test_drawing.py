"""Couplings drawn as SVG and DOT."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from onnxpress.models import zoo
from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.couplings.drawing import GREY, TONES, to_dot, to_svg, told
from onnxpress.rewriter.model import Model

SVG = "{http://www.w3.org/2000/svg}"
RESIDUAL = """
residual (float[1, 3, 8, 8] x) => (float[1, 5, 8, 8] y) {
    a = Conv <kernel_shape = [1, 1]> (x, first)
    b = Relu (a)
    c = Conv <kernel_shape = [1, 1]> (b, second)
    d = Add (a, c)
    y = Conv <kernel_shape = [1, 1]> (d, third)
}
"""


@pytest.fixture
def residual(parse):
    """Three convolutions; the first two make the same 4 channels."""
    shapes = {"first": (4, 3, 1, 1), "second": (4, 4, 1, 1), "third": (5, 4, 1, 1)}
    model = parse(RESIDUAL, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    for node, name in zip(model.graph.nodes, ("conv1", "relu", "conv2", "add", "conv3"), strict=True):
        node.name = name
    return model


def groups(model):
    return find_couplings(model).groups


def svg(model):
    return ElementTree.fromstring(to_svg(model, groups(model)))


def texts(root):
    return [each.text for each in root.iter(f"{SVG}text")]


def bars(root):
    """Colour, place, beginning and end of each group's bar."""
    for group in root.iter(f"{SVG}g"):
        if group.get("stroke"):
            x, first, last = map(float, re.fullmatch(r"M(\S+) (\S+)V(\S+)", group.find(f"{SVG}path").get("d")).groups())
            yield group.get("stroke"), x, first, last


def marks(root, tone):
    """How many layers make the units of the group of that colour, and how many read them."""
    found = [each.get("fill") for each in root.iter(f"{SVG}circle") if each.get("stroke") == tone]
    return found.count(tone), found.count("#fff")


def test_layers_stand_in_graph_order_beside_what_they_are(residual):
    root = svg(residual)
    shown = texts(root)
    assert [each for each in shown if each.startswith("conv") and ":" not in each] == ["conv1", "conv2", "conv3"]
    assert "Conv 4×3×1×1" in shown
    assert shown[0] == "layers: 3, groups that can be pruned: 1, frozen ones: 2"


def test_a_mark_for_each_layer_that_makes_or_reads_the_units(residual):
    root = svg(residual)
    assert marks(root, TONES[0]) == (2, 2)  # made by conv1 and conv2, read by conv2 and conv3
    assert marks(root, GREY) == (1 + 1, 1)  # outputs of conv3, inputs of conv1, and the legend's
    assert "conv1: 4 channels" in texts(root)
    assert any(each.startswith("conv3: 5 channels, frozen: 'y' is an output") for each in texts(root))


@pytest.mark.parametrize("name", ["lenet5", "ppocr-cls"])
def test_bars_in_a_lane_never_meet(name):
    spans = list(bars(svg(Model.load(zoo.path(name)))))
    for k, (_, x, first, last) in enumerate(spans):
        for _, other, low, high in spans[:k]:
            assert x != other or last < low or high < first


def test_labels_never_overlap(residual):
    root = svg(residual)
    heights = sorted(float(each.get("y")) for each in root.iter(f"{SVG}text") if "channels" in (each.text or ""))
    assert len(heights) == 3
    assert np.diff(heights).min() >= 12
    assert heights[-1] < float(root.get("height"))


def test_the_same_model_gives_the_same_pictures(residual):
    again = residual.clone()
    assert to_svg(residual, groups(residual)) == to_svg(again, groups(again))
    assert to_dot(residual, groups(residual)) == to_dot(again, groups(again))


def test_names_are_escaped(residual):
    evil = 'a<b> & "c" \\ \x00\x1b\n'
    residual.graph.nodes[0].name = evil
    assert any(each.startswith('a<b> & "c" \\') for each in texts(svg(residual)))  # and it is XML at all
    dot = to_dot(residual, groups(residual))
    assert r'label="a<b> & \"c\" \\    \nConv 4×3×1×1"' in dot
    assert "\x00" not in dot + to_svg(residual, groups(residual))


def test_long_names_are_cut_in_the_middle_and_whole_in_the_tooltip(residual):
    name = "/encoder/" + "block/" * 40 + "conv"
    residual.graph.nodes[0].name = name
    root = svg(residual)
    assert max(map(len, texts(root))) < 160
    assert any(each.text.startswith(f"{name}: 4 channels") for each in root.iter(f"{SVG}title"))
    assert any("…" in each and each.endswith("/conv: 4 channels") for each in texts(root))


def test_dot_leads_from_makers_to_readers_by_way_of_the_group(residual):
    dot = to_dot(residual, groups(residual))
    named = dict(re.findall(r'^  (\w+) \[.*label="(.*)"\];$', dot, re.MULTILINE))
    edges = {
        (named[a].split(r"\n")[0], named[b].split(r"\n")[0]) for a, b in re.findall(r"^  (\w+) -> (\w+) ", dot, re.M)
    }
    assert {("conv1", "conv1"), ("conv2", "conv1"), ("conv1", "conv2"), ("conv1", "conv3")} <= edges
    assert ("conv3", "conv3") in edges
    assert dot.startswith("digraph couplings {")
    assert dot.count("{") == dot.count("}") == 1


def test_a_model_without_layers_has_a_picture(parse):
    model = parse("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    assert texts(svg(model))[0] == "layers: 0, groups that can be pruned: 0, frozen ones: 0"
    assert "->" not in to_dot(model, groups(model))


def test_told_says_why_a_group_is_frozen(residual):
    found = {each.name: each for each in groups(residual)}
    assert told(found["conv1"]) == "conv1: 4 channels"
    assert told(found["conv3"], reason=9) == "conv3: 5 channels, frozen: 'y… model"


def test_units_are_named_as_people_say_them():
    found = {each.name: told(each) for each in groups(Model.load(zoo.path("textgen")))}
    assert found["/b/LSTM:onnx::LSTM_230"] == "/b/LSTM:onnx::LSTM_230: 128 hidden units"
    assert found["/MatMul"].startswith("/MatMul: 1 neuron, frozen: ")
