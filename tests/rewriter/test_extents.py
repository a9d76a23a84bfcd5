"""Vectors of sizes, traced back entry by entry."""

import numpy as np
import pytest

from onnxpress.rewriter.extents import LONGEST, Extent, entries, extent_range, given, integers, option, readers
from onnxpress.rewriter.shapes import infer_shapes


def traced(model, name="t"):
    """Numbers as they are, sizes as axes in a string, anything else as None."""
    tensor = model.graph.tensors()[name]
    found = entries(tensor, infer_shapes(model))
    return found and [f"{e.tensor.name}:{e.axis}" if isinstance(e, Extent) else e for e in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = Identity (s)", ["x:0", "x:1", "x:2"]),
        ("t = Gather (s, last)", ["x:2"]),
        ("t = Slice (s, one, three)", ["x:1", "x:2"]),
        ("t = Slice (s, zero, three, zero, two)", ["x:0", "x:2"]),
        ("t = Concat <axis = 0> (s, six)", ["x:0", "x:1", "x:2", 6]),
        ("n = Gather (s, zero) m = Mul (n, two) t = Concat <axis = 0> (m, six)", [None, 6]),
        (
            "n = Gather (s, zero) c = Cast <to = 7> (n) q = Squeeze (c) u = Unsqueeze (q, zero) t = Identity (u)",
            ["x:0"],
        ),
        ("t = Constant <value = int64[2] {4, -1}> ()", [4, -1]),
        ("t = Gather (s, nine)", [None]),
        ("t = Slice (s, three, zero, zero, minus)", None),
    ],
)
def test_entries_are_numbers_or_sizes_of_axes(parse, text, expected):
    model = parse(
        f"g (float[N, 3, W] x) => (int64[K] t) {{ s = Shape (x) {text} }}",
        **{n: np.array([v]) for n, v in {"zero": 0, "one": 1, "two": 2, "three": 3, "six": 6, "nine": 9}.items()},
        last=np.array([-1]),
        minus=np.array([-1]),
    )
    found = traced(model)
    assert found == expected or (expected is None and (found is None or set(found) == {None}))


def test_what_is_longer_than_a_shape_is_not_read(parse):
    model = parse("g () => (int64[N] t) { t = Identity (w) }", w=np.arange(LONGEST + 1))
    assert traced(model) is None


def test_a_part_of_a_shape_is_counted_from_both_ends(parse):
    model = parse("g (float[2, 3, 4, 5] x) => (int64[2] t) { t = Shape <start = 1, end = -1> (x) }")
    assert extent_range(model.graph.nodes[0], 4) == range(1, 3)
    assert traced(model) == ["x:1", "x:2"]


def test_only_constant_integers_count(parse):
    model = parse("g (int64[2] x) => (float[2] y) { y = Cast <to = 1> (x) }", w=np.array([1.5], np.float32))
    tensors = model.graph.tensors()
    assert integers(tensors["x"]) is None
    assert integers(None) is None


@pytest.mark.parametrize(("opset", "text"), [(11, "<axes = [1]> (x)"), (13, "(x, one)")])
def test_options_stand_in_an_attribute_or_an_input(parse, opset, text):
    model = parse(f"g (float[2, 1] x) => (float[2] y) {{ y = Squeeze {text} }}", opset=opset, one=np.array([1]))
    node = model.graph.nodes[0]
    assert option(node, "axes", 1) == [1]
    assert (given(node, 1) is None) == (opset == 11)


def test_a_reader_counts_once_for_each_time_it_reads(parse):
    model = parse("g (float[2] x) => (float[2] y) { h = Relu (x) y = Mul (h, h) }")
    assert [(node.op, index) for node, index in readers(model.graph.nodes[0].outputs[0])] == [("Mul", 0), ("Mul", 1)]


def test_sizes_of_the_same_axis_are_the_same(parse):
    x, y = parse("g (float[2] x) => (float[2] y) { y = Relu (x) }").graph.tensors().values()
    assert Extent(x, 0).same(Extent(x, 0))
    assert not Extent(x, 0).same(Extent(y, 0))
    assert not Extent(x, 0).same(2)
