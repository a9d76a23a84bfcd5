"""Weights in blocks by samples of what their layers read."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.rewriter.errors import FeedError


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.fixture
def net(build, random):
    """LayerNormalization, two products of it, a Relu and a third, a convolution-like product of stacks none."""
    weights = {
        "g": np.ones(64, np.float32),
        "z": np.zeros(64, np.float32),
        "q": random.standard_normal((64, 64)).astype(np.float32),
        "k": random.standard_normal((64, 64)).astype(np.float32),
        "o": random.standard_normal((64, 32)).astype(np.float32),
    }
    nodes = [
        node("LayerNormalization", ["x", "g", "z"], ["h"]),
        node("MatMul", ["h", "q"], ["a"]),
        node("MatMul", ["h", "k"], ["b"]),
        node("Mul", ["a", "b"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("MatMul", ["r", "o"], ["y"]),
    ]
    return build(nodes, weights, x=("n", 64))


@pytest.fixture
def samples(random):
    spread = np.exp(1.5 * random.standard_normal(64)).astype(np.float32)
    mixing = random.standard_normal((64, 64)).astype(np.float32) * spread
    return [random.standard_normal((64, 64)).astype(np.float32) @ mixing for _ in range(3)]


@pytest.mark.parametrize("form", ["auto", "load"])
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_output_is_nearer_than_by_rounding_to_nearest(net, samples, bench, run, method, form):
    x = samples[0]
    lost = {}
    for each in (method, "rtn"):
        result = QuantizeWeights(bits=4, method=each, form=form)(net, bench(net, *samples))
        lost[each] = relative(run(result.model, x)[0], run(net, x)[0])
        if each == method:
            told = [c.action for c in result.report.changes if "int4" in c.action]
            assert all("output error" in action for action in told)
    assert lost[method] < 0.95 * lost["rtn"]


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_needs_samples(net, method):
    with pytest.raises(FeedError, match=rf"quantize-weights: {method} weighs errors.*--data"):
        QuantizeWeights(bits=4, method=method)(net)


def test_factors_go_into_the_normalisation_before(net, samples, bench, fused):
    result = QuantizeWeights(bits=4, method="awq", include=("MatMul_[ab]",))(net, bench(net, *samples))
    kinds = fused(result.model)
    assert kinds["MatMulNBits"] == 2
    assert kinds["Mul"] == fused(net)["Mul"]


def test_factors_are_a_product_where_others_read_the_activation(net, samples, bench, fused, run):
    result = QuantizeWeights(bits=4, method="awq", include=("MatMul_a",))(net, bench(net, *samples))
    assert fused(result.model)["Mul"] == fused(net)["Mul"] + 1
    assert relative(run(result.model, samples[0])[0], run(net, samples[0])[0]) < 0.1


def test_says_what_could_not_be_observed(build, random):
    table = random.standard_normal((50, 64)).astype(np.float32)
    weight = random.standard_normal((64, 64)).astype(np.float32)
    nodes = [node("Gather", ["t", "x"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
    model = build(nodes, {"t": table, "w": weight}, x=("n",), dtype=TensorProto.INT64, gives=TensorProto.FLOAT)
    feed = open_feed([{"x": np.arange(50)}], inputs=model.inputs)
    report = QuantizeWeights(bits=4, method="gptq")(model, Workbench(feed=feed, threads=1)).report
    told = {each.site: each.action for each in report.changes}
    assert "a table is looked up, not multiplied" in told["Gather_e"]
    assert "gptq, output error" in told["MatMul_y"]


def test_a_tied_table_is_rounded_for_the_product(build, random):
    table = random.standard_normal((60, 64)).astype(np.float32)
    nodes = [node("Gather", ["t", "x"], ["e"]), node("Gemm", ["e", "t"], ["y"], transB=1)]
    model = build(nodes, {"t": table}, x=("n",), dtype=TensorProto.INT64, gives=TensorProto.FLOAT)
    feed = open_feed([{"x": np.arange(60)}], inputs=model.inputs)
    for method in ("gptq", "awq"):
        result = QuantizeWeights(bits=4, method=method)(model, Workbench(feed=feed, threads=1))
        assert f"{method}, output error" in result.report.changes[0].action


def test_convolutions_in_groups(build, run, bench, random):
    weight = random.standard_normal((8, 4, 3, 3)).astype(np.float32)
    model = build([node("Conv", ["x", "w"], ["y"], group=2)], {"w": weight}, x=(2, 8, 9, 9))
    x = random.standard_normal((2, 8, 9, 9)).astype(np.float32)
    for method, told in (("gptq", "gptq, output error"), ("awq", "awq knows no groups")):
        result = QuantizeWeights(bits=4, method=method)(model, bench(model, x))
        assert told in result.report.changes[0].action
        assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_inputs_too_large_to_square_are_rounded_otherwise(build, run, bench, random, method):
    model = build(
        [node("MatMul", ["x", "w"], ["y"])], {"w": random.standard_normal((64, 32)).astype(np.float32)}, x=("n", 64)
    )
    x = 1e20 * random.standard_normal((8, 64)).astype(np.float32)
    result = QuantizeWeights(bits=4, method=method)(model, bench(model, x))
    assert "too large for float32" in result.report.changes[-1].action
    assert relative(run(result.model, x)[0] / 1e20, run(model, x)[0] / 1e20) < 0.2
