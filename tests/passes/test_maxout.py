"""Outputs cut into pieces of which the largest values are read."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.maxout import pieces_of
from onnxpress.rewriter.edits import output_ids

PLACES = {"0": 0, "1": 1, "2": 2, "4": 4, "6": 6, "-2": -2, "big": 2**60}
INTS = {name: np.array([place]) for name, place in PLACES.items()}


def node(op, inputs, *outputs, **attrs):
    return helper.make_node(op, inputs, list(outputs), **attrs)


def cut(begin, end, output, *, axis="1", step="1"):
    return node("Slice", ["t", begin, end, axis, step], output)


def found(build, *nodes, outputs=("y",)):
    model = build([node("Sigmoid", ["x"], "t"), *nodes], INTS, x=["n", 6], outputs=outputs)
    (tensor,) = model.graph.nodes[0].outputs
    return pieces_of(tensor, 6, (1, -1), output_ids(model))


HALVES = (cut("0", "2", "a"), cut("2", "4", "b"), cut("4", "big", "c"))


@pytest.mark.parametrize(
    "nodes",
    [
        [*HALVES, node("Max", ["a", "b", "c"], "y")],
        [*HALVES, node("Max", ["c", "a"], "d"), node("Max", ["d", "b"], "y")],
        [cut("0", "2", "a"), cut("2", "-2", "b"), cut("-2", "6", "c"), node("Max", ["a", "b", "c"], "y")],
        [node("Split", ["t"], "a", "b", "c", axis=1), node("Max", ["a", "b", "c"], "y")],
    ],
)
def test_finds_the_pieces(build, nodes):
    assert found(build, *nodes) == 3


@pytest.mark.parametrize(
    "nodes",
    [
        [cut("0", "2", "a"), cut("2", "4", "b"), node("Max", ["a", "b"], "y")],  # a part is read by nobody
        [cut("0", "4", "a"), cut("4", "6", "b"), node("Relu", ["a"], "y")],
        [*HALVES, node("Max", ["a", "b", "c"], "d"), node("Add", ["d", "a"], "y")],
        [*HALVES, node("Max", ["a", "b"], "d"), node("Concat", ["d", "c"], "y", axis=1)],
        [*HALVES, node("Max", ["a", "b", "x"], "d"), node("Max", ["d", "c"], "y")],
        [cut("0", "2", "a", step="2"), cut("2", "4", "b"), cut("4", "6", "c"), node("Max", ["a", "b", "c"], "y")],
        [cut("0", "2", "a", axis="0"), cut("2", "4", "b"), cut("4", "6", "c"), node("Max", ["a", "b", "c"], "y")],
        [node("Split", ["t"], "a", "b", "c", axis=0), node("Max", ["a", "b", "c"], "y")],
    ],
)
def test_leaves_what_is_no_maxout(build, nodes):
    assert found(build, *nodes) is None


def test_leaves_pieces_that_the_model_gives(build):
    nodes = [*HALVES, node("Max", ["a", "b"], "d"), node("Max", ["d", "c"], "y")]
    assert found(build, *nodes, outputs=("y", "d")) is None
