"""What quantize-static decides by what it measures, and what it takes."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import sqnr
from onnxpress.passes.base import Workbench
from onnxpress.passes.pace import Pace
from onnxpress.passes.quantize import static
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.edits import set_input
from onnxpress.rewriter.errors import ConfigError


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def outliers(build, random):
    """One channel of x is fifty times as wide as the others, which count as much."""
    weight = random.standard_normal((32, 32), np.float32)
    weight[0] /= 50
    weights = {"w": weight, "v": random.standard_normal((32, 32), np.float32)}
    model = build([node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])], weights, x=("n", 32))
    x = random.standard_normal((64, 32), np.float32)
    x[:, 0] *= 50
    return model, x


def test_smooths_first_on_request(outliers, bench, run):
    model, x = outliers
    found = {}
    for smooth in (False, True):
        quantize = QuantizeStatic(smooth=smooth, layer_sqnr=0, min_sqnr=0)
        result = quantize(model, bench(model, x[:32], x[32:]))
        found[smooth] = sqnr(run(model, x)[0], run(result.model, x)[0])
    assert found[True] > found[False] + 6
    assert any(each.action.startswith("smooth: ") for each in result.report.changes)


def test_takes_all_back_where_codes_are_not_faster(outliers, bench, run, monkeypatch):
    model, x = outliers
    monkeypatch.setattr(static, "measured_pace", lambda *_, **__: Pace(0.5, (0.4, 0.6)))
    result = QuantizeStatic(smooth=True, faster=True, layer_sqnr=0)(model, bench(model, x[:32], x[32:]))
    ops = {str(each.op) for each in result.model.graph.nodes}
    assert not ops & {"QuantizeLinear", "Mul"}
    assert not any(each.action.startswith("smooth: ") for each in result.report.changes)
    assert "on codes the model is only 0.50 times as fast" in result.report.changes[0].action
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 25  # weights of 8 bits


def test_keeps_codes_that_are_faster(outliers, bench, monkeypatch):
    model, x = outliers
    monkeypatch.setattr(static, "measured_pace", lambda *_, **__: Pace(1.5, (1.4, 1.6)))
    result = QuantizeStatic(faster=True, min_sqnr=0, layer_sqnr=0)(model, bench(model, x))
    assert any(each.op == "QuantizeLinear" for each in result.model.graph.nodes)
    assert any(each.action.startswith("1.50 times as fast") for each in result.report.changes)


def test_a_weight_that_is_computed_is_no_layer(build, bench, random):
    nodes = [
        node("Mul", ["w", "two"], ["computed"]),
        node("Relu", ["computed"], ["v"]),
        node("Conv", ["x", "u"], ["a"]),
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["float"], to=onnx.TensorProto.FLOAT),
        node("ReduceMean", ["float"], ["mean"], keepdims=0),
        node("Mul", ["v", "mean"], ["late"]),
        node("Conv", ["a", "late"], ["y"]),
    ]
    weights = {name: random.standard_normal((16, 16, 3, 3), np.float32) for name in ("u", "w")}
    model = build(nodes, {**weights, "two": np.float32(2)}, x=("n", 16, 8, 8))
    result = QuantizeStatic()(model, bench(model, random.standard_normal((2, 16, 8, 8), np.float32)))
    assert any(each.op == "Conv" for each in result.model.graph.nodes)


def test_large_biases_leave_room_for_the_products(build, bench, run, random):
    weights = {"w": random.standard_normal((64, 8), np.float32), "b": np.full(8, 1e7, np.float32)}
    model = build([node("Gemm", ["x", "w", "b"], ["y"])], weights, x=("n", 64))
    x = random.standard_normal((16, 64), np.float32)
    result = QuantizeStatic(layer_sqnr=0, min_sqnr=0)(model, bench(model, x))
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 60


def test_a_weight_read_in_two_ways_is_stored_small(build, bench, run, random):
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Gemm", ["a", "w"], ["y"], transB=1)]
    model = build(nodes, {"w": random.standard_normal((64, 64), np.float32)}, x=("n", 64))
    x = random.standard_normal((16, 64), np.float32)
    result = QuantizeStatic()(model, bench(model, x))
    assert result.model.weight_bytes() < 0.4 * model.weight_bytes()
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 30


def test_a_mask_of_infinities_may_be_an_input(build, bench, run, random):
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "mask"], ["b"]),
        node("Softmax", ["b"], ["y"]),
    ]
    model = build(nodes, {"w": random.standard_normal((32, 8), np.float32)}, x=("n", 32))
    mask = gs.Variable("mask", np.dtype(np.float32), ["n", 8])
    reader = next(each for each in model.graph.nodes if each.op == "Add")
    set_input(reader, 1, mask)
    model.graph.inputs.append(mask)
    x, hidden = random.standard_normal((4, 32), np.float32), np.zeros((4, 8), np.float32)
    hidden[:, 5:] = -np.inf
    feed = open_feed([{"x": x, "mask": hidden}], inputs=model.inputs)
    result = QuantizeStatic(layer_sqnr=0)(model, Workbench(feed=feed, threads=1))
    assert any(each.op == "QuantizeLinear" for each in result.model.graph.nodes)
    assert sqnr(run(model, x, mask=hidden)[0], run(result.model, x, mask=hidden)[0]) > 20


def test_a_calibration_file_does_not_go_with_smooth():
    with pytest.raises(ConfigError, match="before smooth; leave one of them out"):
        QuantizeStatic(smooth=True, calibration="ranges.npz")


def test_recurrent_layers_may_be_named():
    assert QuantizeStatic(ops=["LSTM"]).ops == ("LSTM",)


def test_a_limit_on_the_metric_needs_one(outliers, bench):
    model, x = outliers
    with pytest.raises(ConfigError, match="needs a metric"):
        QuantizeStatic(max_drop=0.01)(model, bench(model, x))
