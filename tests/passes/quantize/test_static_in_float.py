"""Layers that compute in float: their weights are stored as codes where that is smaller, with the reason."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.model import Model


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


def test_a_layer_beside_infinities_computes_in_float(build, bench, run, random):
    nodes = [node("Log", ["x"], ["l"]), node("MatMul", ["l", "w"], ["a"]), node("Max", ["a", "low"], ["y"])]
    weights = {"low": np.float32(-50), "w": random.uniform(0.5, 1, (32, 32)).astype(np.float32)}
    model = build(nodes, weights, x=("n", 32))
    x = np.zeros((2, 32), np.float32)
    x[0] = 1
    result = QuantizeStatic()(model, bench(model, x))
    assert "'l' held NaN or infinities" in result.report.changes[0].action
    np.testing.assert_array_equal(run(result.model, x)[0], run(model, x)[0])


@pytest.fixture
def spread(build, random):
    """The first channel of x is a thousand times larger than the others, and counts for nothing."""
    weight = random.standard_normal((32, 32), np.float32)
    weight[0] = 0
    model = build(
        [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])], {"w": weight, "v": weight}, x=("n", 32)
    )
    x = random.standard_normal((16, 32), np.float32)
    x[:, 0] *= 1000
    return model, x


def test_a_layer_that_loses_too_much_computes_in_float(spread, bench, run):
    model, x = spread
    result = QuantizeStatic()(model, bench(model, x))
    first, second = result.report.changes[:2]
    assert first.action.startswith("int8 in the file (gptq ")
    assert "float when it runs: on codes it has " in first.action
    assert first.action.endswith("layer_sqnr is 20")
    assert second.action.startswith("int8 per channel, activations uint8, ")
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 30


def test_no_layer_is_tried_on_request(spread, bench, run):
    model, x = spread
    result = QuantizeStatic(layer_sqnr=0, min_sqnr=0, rounding="nearest")(model, bench(model, x))
    assert {each.action for each in result.report.changes[:2]} == {"int8 per channel, activations uint8"}
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) < 20


def test_weights_inside_a_branch_are_stored_small(random):
    branch, other = (
        helper.make_graph(
            [node("MatMul", ["x", name], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(random.standard_normal((32, 32), np.float32), name)],
        )
        for name in ("u", "w")
    )
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 32])
    which = helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [node("If", ["which"], ["y"], then_branch=branch, else_branch=other)], "g", [x, which], [y]
    )
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    sample = {"x": random.standard_normal((2, 32), np.float32), "which": np.array(True)}
    result = Pipeline([QuantizeStatic()])(model, Workbench(feed=open_feed([sample], inputs=model.inputs)))
    reasons = [each.action for each in result.reports[-1].changes]
    assert len(reasons) == 2
    assert all("inside an If or a Loop" in each for each in reasons)
    assert "no layer computes in int8" in result.reports[-1].warnings[0]
    assert result.model.weight_bytes() < 0.4 * model.weight_bytes()


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("ConvTranspose", ["x", "k"], ["y"])], "ONNX Runtime has no ConvTranspose on 8-bit codes"),
        ([node("Transpose", ["x"], ["t"]), node("MatMul", ["m", "t"], ["y"])], "its weight is on the left"),
        ([node("Gemm", ["x", "m"], ["y"], alpha=0.5)], "no 8-bit Gemm with transA or alpha"),
        ([node("Gemm", ["x", "m", "one"], ["y"])], "its bias is not one constant number a channel"),
        ([node("MatMul", ["x", "stack"], ["y"])], "its weight is a stack of matrices"),
    ],
)
def test_stores_the_weights_of_what_stays_float(build, bench, run, random, nodes, reason):
    weights = {
        "k": random.standard_normal((32, 8, 3), np.float32),
        "m": random.standard_normal((32, 32), np.float32),
        "stack": random.standard_normal((2, 32, 16), np.float32),
        "one": np.ones(1, np.float32),
    }
    used = {name: array for name, array in weights.items() if any(name in each.input for each in nodes)}
    shape = (1, 32, 32) if "k" in used else (32, 32)
    model = build(nodes, used, x=shape)
    x = random.standard_normal(shape, np.float32)
    result = QuantizeStatic()(model, bench(model, x))
    assert reason in result.report.changes[0].action
    assert result.model.weight_bytes() < 0.35 * model.weight_bytes()
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 35


def test_skips_small_weights_with_the_reason(build, bench, random):
    weights = {"k": random.standard_normal((2, 2, 3), np.float32)}
    model = build([node("ConvTranspose", ["x", "k"], ["y"])], weights, x=(1, 2, 8))
    report = QuantizeStatic()(model, bench(model, np.ones((1, 2, 8), np.float32))).report
    assert "48 bytes would not get smaller" in report.skips[0].reason


def test_skips_float16(build, random):
    weights = {"w": random.standard_normal((32, 32)).astype(np.float16)}
    model = build([node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 32), dtype=onnx.TensorProto.FLOAT16)
    report = QuantizeStatic()(model).report
    assert report.skips[0].reason.endswith("its weight is float16; only float32 is quantized")
