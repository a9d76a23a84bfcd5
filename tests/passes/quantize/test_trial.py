import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.kernels.affine import INT8_SYMMETRIC, UINT8, affine_scale, dequantize, quantize
from onnxpress.passes.quantize.trial import BATCHES, Candidate, Total, decibels, some, try_layers
from onnxpress.rewriter.weights import read


@pytest.fixture
def model(build, random):
    weight = random.integers(-127, 128, (16, 8)).astype(np.float32) / 127
    weight[0] = 1
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return build(nodes, {"w": weight}, x=("n", 16))


def candidate(model, *, tail):
    layer = model.graph.nodes[0]
    weight, scale = read(layer.inputs[1]), np.full(8, 1 / 127, np.float32)
    return Candidate(layer, tail, quantize(weight, scale, grid=INT8_SYMMETRIC, axis=1), scale, 1)


def test_measures_what_rounding_the_input_loses(model, bench, random):
    x = random.standard_normal((32, 16), np.float32)
    grid = affine_scale(x.min(), x.max(), UINT8)
    weight = read(model.graph.nodes[0].inputs[1])
    rounded = dequantize(quantize(x, *grid, grid=UINT8), *grid)
    signal, noise = np.square(x @ weight).sum(), np.square((x - rounded) @ weight).sum()
    [found] = try_layers(
        model, [candidate(model, tail=model.graph.nodes[0].outputs[0])], {"x": grid}, bench(model, x[:16], x[16:])
    )
    assert found == pytest.approx(10 * np.log10(signal / noise), abs=0.1)  # sums in another order


def test_sees_the_result_behind_what_vanishes(model, bench):
    x = -np.ones((4, 16), np.float32)  # all zero behind Relu, so nothing is lost
    model.replace_weight(model.graph.nodes[0].inputs[1], np.ones((16, 8), np.float32))
    grid = affine_scale(-1.03, 0.5, UINT8)
    last = model.graph.nodes[1].outputs[0]
    assert try_layers(model, [candidate(model, tail=last)], {"x": grid}, bench(model, x)) == [math.inf]


def test_leaves_the_model_alone(model, bench):
    before = model.to_proto()
    x = np.ones((4, 16), np.float32)
    try_layers(
        model,
        [candidate(model, tail=model.graph.nodes[0].outputs[0])],
        {"x": affine_scale(0, 1, UINT8)},
        bench(model, x),
    )
    assert model.to_proto() == before


def test_takes_a_few_batches_spread_over_the_feed(model):
    batches = [{"x": np.full((1, 16), i, np.float32)} for i in range(4 * BATCHES)]
    feed = open_feed(batches, inputs=model.inputs)
    assert [float(batch["x"][0, 0]) for batch in some(feed)] == [4.0 * i for i in range(BATCHES)]
    assert some(feed.take(2)).count == 2


def test_totals_add_up():
    one, other = Total(), Total()
    one.update(np.array(2.0))
    other.update(np.array(3.0))
    one.merge(other)
    assert one.state() == {"value": 5.0}


@pytest.mark.parametrize(("signal", "noise"), [(1.0, np.inf), (np.inf, np.inf), (np.inf, 1.0), (np.nan, np.nan)])
def test_does_not_trust_sums_beyond_float32(signal: float, noise: float) -> None:
    assert decibels(signal, noise) == -np.inf
