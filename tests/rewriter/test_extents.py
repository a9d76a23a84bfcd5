"""Vectors of sizes, traced back entry by entry."""

import numpy as np
import pytest

from onnxpress.rewriter import extents
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
    tensors, shapes = model.graph.tensors(), infer_shapes(model)
    assert integers(tensors["x"], shapes) is None
    assert integers(None, shapes) is None


def test_what_a_caller_may_override_is_no_constant(parse):
    model = parse(
        "g (float[N, 3, 4] x, int64[2] w, int64[1] at) => (int64[K] t, float[N, M] y) "
        "{ t = Identity (w) y = Squeeze (x, at) }",
        w=np.array([6, 4]),
        at=np.array([1]),
    )
    shapes = infer_shapes(model)
    assert integers(model.graph.inputs[1], shapes) is None
    assert option(model.graph.nodes[1], "axes", 1, shapes) is None
    assert traced(model) == [None, None]


def test_sizes_joined_with_themselves_are_read_once(parse, monkeypatch):
    reads = []
    monkeypatch.setattr(extents, "extent_range", lambda node, rank: reads.append(node) or range(rank))
    doubled = " ".join(f"c{i + 1} = Concat <axis = 0> (c{i}, c{i})" for i in range(16))
    model = parse(f"g (float x) => (int64[K] t) {{ c0 = Shape (x) {doubled} t = Identity (c16) }}")
    assert not traced(model)
    assert len(reads) == 1


def test_a_slice_that_cuts_no_axis_keeps_all_entries(parse):
    model = parse(
        "g (float[N, 3] x) => (int64[2] t) { s = Shape (x) t = Slice (s, none, none, none) }", none=np.zeros(0, int)
    )
    assert traced(model) == ["x:0", "x:1"]


@pytest.mark.parametrize(("opset", "text"), [(11, "<axes = [1]> (x)"), (13, "(x, one)")])
def test_options_stand_in_an_attribute_or_an_input(parse, opset, text):
    model = parse(f"g (float[2, 1] x) => (float[2] y) {{ y = Squeeze {text} }}", opset=opset, one=np.array([1]))
    node = model.graph.nodes[0]
    assert option(node, "axes", 1, infer_shapes(model)) == [1]
    assert (given(node, 1) is None) == (opset == 11)


def test_a_reader_counts_once_for_each_time_it_reads(parse):
    model = parse("g (float[2] x) => (float[2] y) { h = Relu (x) y = Mul (h, h) }")
    assert [(node.op, index) for node, index in readers(model.graph.nodes[0].outputs[0])] == [("Mul", 0), ("Mul", 1)]


def test_sizes_of_the_same_axis_are_the_same(parse):
    x, y = parse("g (float[2] x) => (float[2] y) { y = Relu (x) }").graph.tensors().values()
    assert Extent(x, 0).same(Extent(x, 0))
    assert not Extent(x, 0).same(Extent(y, 0))
    assert not Extent(x, 0).same(2)
