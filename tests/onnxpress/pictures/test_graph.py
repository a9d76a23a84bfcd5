"""The changed parts of a graph."""

import re

import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.difference import compare
from onnxpress.pictures import graph


def chain(path, ops):
    """A chain of nodes; `ops` names each, `-` leaves one out."""
    nodes, last = [], "x"
    for k, op in enumerate(ops):
        if op != "-":
            nodes.append(helper.make_node(op, [last], [f"t{k}"], name=f"<n>{k}"))
            last = f"t{k}"
    nodes.append(helper.make_node("Identity", [last], ["y"], name="last"))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])] for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends), ir_version=9), path)
    return path


@pytest.fixture
def drawn(tmp_path):
    def drawn(before, after, **options):
        found = compare(chain(tmp_path / "a.onnx", before), chain(tmp_path / "b.onnx", after))
        return graph.section(found, **options)

    return drawn


def test_equal_graphs_need_no_picture(drawn):
    assert drawn(["Relu"] * 9, ["Relu"] * 9) == ""


def test_unchanged_chains_are_counted(drawn):
    text = drawn(["Relu"] * 40 + ["Neg"] + ["Relu"] * 20, ["Relu"] * 40 + ["Abs"] + ["Relu"] * 20)
    assert text.count("… 39 unchanged nodes …") == 2
    assert text.count("… 20 unchanged nodes …") == 2
    assert text.count('class="box was"') == 1 + 1  # one in the legend
    assert text.count('class="box is"') == 1 + 1


def test_the_same_change_is_drawn_once(drawn):
    text = drawn(["Relu", "Neg"] * 30, ["Relu", "Abs"] * 30)
    assert "30 places like this" in text
    assert text.count("<h4>before</h4>") == 1


def test_a_node_that_is_gone_is_drawn_before_only(drawn):
    text = drawn(["Relu", "Relu", "Neg", "Relu"], ["Relu", "Relu", "-", "Relu"])
    before, after = text.split("<h4>after</h4>")
    assert (before.count(">Neg</text>"), after.count(">Neg</text>")) == (1, 0)


def test_a_place_of_many_nodes_is_cut(drawn, tmp_path):
    before = ["Relu"] + ["Neg"] * 50 + ["Relu"]
    text = drawn(before, ["Relu"] + ["-"] * 50 + ["Relu"])
    assert "more changed nodes …" in text
    assert text.count('class="box was"') == 1 + graph.CHANGED - 1


def test_names_are_escaped(drawn):
    text = drawn(["Relu", "Neg"], ["Relu", "Abs"], actions={"<n>1": ["<b>did</b>"]})
    assert "<n>" not in text
    assert "&lt;b&gt;did" in text


def test_a_large_model_stays_small(drawn):
    kinds = ["Abs", "Cos", "Sin", "Exp", "Ceil", "Floor", "Sign", "Sqrt", "Tanh", "Round", "Atan", "Asin", "Acos"]
    before = (["Neg"] + ["Relu"] * 20) * 150
    after = [op if op == "Relu" else kinds[k // 21 % 13] for k, op in enumerate(before)]
    text = drawn(before, after)
    assert len(re.findall('class="box', text)) <= graph.BOXES + 4  # and the legend
    assert "more kinds of change at" in text
    assert len(text) < 100_000
    assert text.count("<rect class=") <= graph.RUNS
