import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.bounds import floor_of, mask_floors

X = ("n", 4)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, **attrs)


def test_hard_swish_ignores_what_lies_below_minus_three(build):
    written_out = [node("HardSigmoid", ["a"], ["g"], alpha=1 / 6, beta=0.5), node("Mul", ["a", "g"], ["y"])]
    model = build([node("Neg", ["x"], ["a"]), *written_out], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == pytest.approx(-3, rel=1e-6)
    model = build([node("Neg", ["x"], ["a"]), node("HardSwish", ["a"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -3


def test_swish_ignores_what_lies_below_minus_ten(build):
    model = build([node("Neg", ["x"], ["a"]), node("Sigmoid", ["a"], ["g"]), node("Mul", ["a", "g"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -10


@pytest.mark.parametrize(
    "readers",
    [
        [node("Sigmoid", ["a"], ["g"]), node("Mul", ["a", "w"], ["h"]), node("Add", ["g", "h"], ["y"])],
        [node("Sigmoid", ["a"], ["g"]), node("Add", ["a", "g"], ["y"])],
        [node("HardSigmoid", ["a"], ["y"], alpha=-1.0)],
        [node("HardSwish", ["a"], ["g"]), node("Mul", ["a", "g"], ["y"])],
        [node("Relu", ["a"], ["y"])],
    ],
)
def test_knows_no_floor_for_other_readers(build, readers):
    model = build([node("Neg", ["x"], ["a"]), *readers], {"w": np.ones(4, np.float32)}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -math.inf


def test_knows_no_floor_where_nobody_reads(build):
    model = build([node("Neg", ["x"], ["y"])], {}, x=X)
    assert floor_of(model.graph.nodes[0].outputs[0]) == -math.inf


LEAST = float(np.finfo(np.float32).min)
SPANS = {"a": (-7.0, 5.0), "b": (-7.0, 5.0), "m": (-10000.0, 0.0), "u": (-10000.0, 0.0)}


def softmax(*nodes):
    return [node("Neg", ["x"], ["a"]), node("Abs", ["x"], ["u"]), *nodes]


@pytest.mark.parametrize("order", [("a", "u"), ("u", "a")])
def test_an_added_mask_is_bounded_where_softmax_makes_nothing_of_it(build, order):
    model = build(softmax(node("Add", order, ["t"]), node("Softmax", ["t"], ["y"])), {}, x=X)
    assert mask_floors(model, SPANS) == {"t": -27.0, "u": -32.0}


def test_a_constant_mask_is_bounded(build):
    mask = {"k": np.triu(np.full((4, 4), LEAST, np.float32), 1)}
    nodes = [node("Neg", ["x"], ["a"]), node("Add", ["a", "k"], ["t"]), node("Softmax", ["t"], ["y"])]
    assert mask_floors(build(nodes, mask, x=X), SPANS) == {"t": -27.0, "k": -32.0}


def test_a_mask_that_where_puts_in_is_bounded(build):
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("Greater", ["x", "zero"], ["c"]),
        node("Where", ["c", "a", "k"], ["t"]),
        node("Softmax", ["t"], ["y"]),
    ]
    model = build(nodes, {"k": np.float32(-np.inf), "zero": np.float32(0)}, x=X)
    assert mask_floors(model, SPANS) == {"t": -27.0, "k": -32.0}


def test_one_mask_of_several_layers_has_the_lowest_of_their_bounds(build):
    nodes = softmax(
        node("Unsqueeze", ["u", "axis"], ["m"]),
        node("Abs", ["x"], ["b"]),
        *(node("Add", [scores, "m"], [f"t{scores}"]) for scores in "ab"),
        *(node("Softmax", [f"t{scores}"], [f"s{scores}"]) for scores in "ab"),
        node("Add", ["sa", "sb"], ["y"]),
    )
    model = build(nodes, {"axis": np.array([0], np.int64)}, x=X)
    floors = mask_floors(model, SPANS | {"b": (-70.0, 5.0)})
    assert floors == {"ta": -27.0, "tb": -90.0, "m": -95.0, "u": -95.0}


@pytest.mark.parametrize(
    ("nodes", "spans"),
    [
        ([node("Add", ["a", "u"], ["t"]), node("Softmax", ["t"], ["y"])], SPANS | {"u": (-5.0, 0.0)}),
        ([node("Add", ["a", "u"], ["t"]), node("Softmax", ["t"], ["y"])], SPANS | {"a": (-9000.0, 0.0)}),
        ([node("Add", ["a", "u"], ["t"]), node("Softmax", ["t"], ["y"])], {}),
        ([node("Mul", ["a", "u"], ["t"]), node("Softmax", ["t"], ["y"])], SPANS),
        ([node("Softmax", ["u"], ["y"])], SPANS),
        ([node("Add", ["a", "u"], ["t"]), node("Softmax", ["t"], ["s"]), node("Add", ["s", "t"], ["y"])], SPANS),
    ],
)
def test_knows_no_mask_in_other_forms(build, nodes, spans):
    assert mask_floors(build(softmax(*nodes), {}, x=X), spans) == {}


def test_a_mask_that_others_read_stays_whole(build):
    nodes = softmax(node("Add", ["a", "u"], ["t"]), node("Softmax", ["t"], ["s"]), node("Add", ["s", "u"], ["y"]))
    assert mask_floors(build(nodes, {}, x=X), SPANS) == {"t": -27.0}
