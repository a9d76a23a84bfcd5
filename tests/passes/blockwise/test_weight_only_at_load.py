"""Weights in blocks that ONNX Runtime decodes when it creates a session, since no operator runs on their codes."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.blockwise.weights import QuantizeWeights


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_branches_read_what_is_decoded_outside_of_them(build, run, random):
    table, weight = (random.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    ends = [helper.make_tensor_value_info(name, 1, None) for name in "ab"]
    nodes = [node("Gather", ["t", "i"], ["g"]), node("MatMul", ["g", "w"], ["a"])]
    then = helper.make_graph(nodes, "then", [], ends[:1])
    other = helper.make_graph([node("MatMul", ["x", "w"], ["b"])], "other", [], ends[1:])
    chosen = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "none"], ["c"])]
    nodes = [*chosen, node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    constants = {"t": table, "w": weight, "i": np.array([3, 5]), "none": np.float32(0)}
    model = build(nodes, constants, x=(2, 64))
    result = QuantizeWeights(bits=4)(model)
    assert len(result.report.changes) == 2
    x = np.abs(random.standard_normal((2, 64))).astype(np.float32)
    for each in (x, -x):
        assert relative(run(result.model, each)[0], run(model, each)[0]) < 0.2


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("block", [None, 0])
def test_convolutions_are_decoded_at_load(build, run, fused, random, bits, block):
    weights = {
        "w": random.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "d": random.standard_normal((16, 1, 5, 5)).astype(np.float32),
        "t": random.standard_normal((16, 24, 2, 2)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Conv", ["a", "d"], ["b"], group=16),
        node("ConvTranspose", ["b", "t"], ["y"]),
    ]
    model = build(nodes, weights, x=(1, 8, 12, 12))
    result = QuantizeWeights(bits=bits, block=block, method="hqq")(model)
    assert len(result.report.changes) == 3
    assert result.model.opset == 17
    assert fused(result.model) == fused(model)
    x = random.standard_normal((1, 8, 12, 12)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < {4: 0.25, 2: 0.9}[bits]


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_weights_are_decoded_at_load(build, run, random, op):
    gates = 4 if op == "LSTM" else 3
    weights = {
        "w": random.standard_normal((2, gates * 32, 48)).astype(np.float32) / 7,
        "r": random.standard_normal((2, gates * 32, 32)).astype(np.float32) / 7,
    }
    nodes = [node(op, ["x", "w", "r"], ["y"], hidden_size=32, direction="bidirectional")]
    model = build(nodes, weights, x=(4, 1, 48))
    result = QuantizeWeights(bits=4)(model)
    assert len(result.report.changes) == 2
    x = random.standard_normal((4, 1, 48)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.25


def test_stacks_and_left_operands_are_decoded_at_load(build, run, fused, random):
    weights = {
        "s": random.standard_normal((3, 32, 40)).astype(np.float32),
        "l": random.standard_normal((24, 5)).astype(np.float32),
    }
    nodes = [node("MatMul", ["x", "s"], ["h"]), node("MatMul", ["l", "h"], ["y"])]
    model = build(nodes, weights, x=(3, 5, 32))
    result = QuantizeWeights(bits=4)(model)
    assert len(result.report.changes) == 2
    x = random.standard_normal((3, 5, 32)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.2
    assert fused(result.model) == fused(model)
