"""Models whose layers compute on 8-bit codes."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize import static
from onnxpress.passes.quantize.host import Host
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError
from onnxpress.rewriter.weights import read


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def dense(build, random):
    """x [n, 32] -> Gemm -> Relu -> Gemm -> y [n, 8]; the channels of the first weight differ in size."""
    weights = {
        "w": random.standard_normal((32, 64), np.float32) * np.geomspace(0.01, 1, 64, dtype=np.float32),
        "b": random.standard_normal(64, np.float32),
        "v": random.standard_normal((8, 64), np.float32) / 8,
    }
    nodes = [
        node("Gemm", ["x", "w", "b"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Gemm", ["r", "v"], ["y"], transB=1),
    ]
    return build(nodes, weights, x=("n", 32))


@pytest.fixture
def batch(random):
    return random.standard_normal((64, 32), np.float32)


def weights_of(model):
    """Codes and scales of the weights by the name of the layer."""
    found = {}
    for layer in model.graph.nodes:
        source = layer.inputs[1].inputs[0] if len(layer.inputs) > 1 and layer.inputs[1].inputs else None
        if layer.op in ("Conv", "Gemm", "MatMul") and source is not None and source.op == "DequantizeLinear":
            found[layer.name] = read(source.inputs[0]), read(source.inputs[1])
    return found


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_stays_close_to_float(dense, bench, run, batch, activation):
    quantized = QuantizeStatic(activation=activation)(dense, bench(dense, batch)).model
    assert sqnr(run(dense, batch)[0], run(quantized, batch)[0]) > 35


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_all_layers_run_on_codes(dense, bench, batch, fused, activation):
    found = fused(QuantizeStatic(activation=activation)(dense, bench(dense, batch)).model)
    assert found == {"QuantizeLinear": 1, "QGemm": 2}


def test_each_channel_has_its_scale(dense, bench, batch):
    weight = read(dense.graph.nodes[0].inputs[1])
    codes, scale = weights_of(QuantizeStatic(reduce_range=False, rounding="nearest")(dense, bench(dense, batch)).model)[
        "Gemm_a"
    ]
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=0) / 127, rtol=1e-6)
    assert codes.dtype == np.int8
    assert (np.abs(codes).max(axis=0) == 127).all()
    # half a step is the most that rounding loses
    np.testing.assert_array_less(np.abs(codes * scale - weight), 0.5001 * scale + np.zeros_like(weight))


def test_one_scale_a_tensor_on_request(dense, bench, batch):
    quantized = QuantizeStatic(per_channel=False)(dense, bench(dense, batch)).model
    assert [scale.shape for _, scale in weights_of(quantized).values()] == [(), ()]


def test_bias_is_int32_at_the_scale_of_the_products(dense, bench, batch):
    quantized = QuantizeStatic()(dense, bench(dense, batch)).model
    layer = next(each for each in quantized.graph.nodes if each.name == "Gemm_a")
    codes, scale = (read(each) for each in layer.inputs[2].inputs[0].inputs)
    step = read(layer.inputs[0].inputs[0].inputs[1])
    assert codes.dtype == np.int32
    np.testing.assert_allclose(scale, step * weights_of(quantized)["Gemm_a"][1], rtol=1e-6)
    bias = read(dense.graph.nodes[0].inputs[2])
    np.testing.assert_array_less(np.abs(codes * scale - bias), 0.51 * scale)


def test_a_bias_too_large_for_int32_widens_the_scale(build, bench, run, random):
    weights = {"w": np.full((32, 4), 1e-9, np.float32), "b": np.array([0, 1, -100, 3], np.float32)}
    model = build([node("Gemm", ["x", "w", "b"], ["y"])], weights, x=("n", 32))
    x = random.standard_normal((4, 32), np.float32)
    quantized = QuantizeStatic()(model, bench(model, x)).model
    np.testing.assert_allclose(run(quantized, x)[0], run(model, x)[0], rtol=1e-6, atol=1e-6)


def test_reports_every_site(dense, bench, batch):
    report = QuantizeStatic(exclude=("Gemm_y",))(dense, bench(dense, batch)).report
    sites = [each for each in report.changes if each.site != "graph"]
    assert [each.site for each in sites] == ["Gemm_a"]
    assert sites[0].bytes_before == 32 * 64 * 4
    assert sites[0].bytes_after == 32 * 64 + 64 * 4
    assert 0 < sites[0].error < 0.01
    assert [(each.site, each.reason) for each in report.skips] == [("Gemm_y", "excluded by the recipe")]


def test_leaves_the_callers_model_alone(dense, bench, batch):
    before = dense.to_proto()
    QuantizeStatic()(dense, bench(dense, batch))
    assert dense.to_proto() == before


def test_gives_the_same_bytes_every_time(dense, bench, batch):
    first, second = (QuantizeStatic()(dense, bench(dense, batch)).model for _ in range(2))
    assert first.to_proto().SerializeToString() == second.to_proto().SerializeToString()


def test_keeps_names_and_invariants_in_a_pipeline(dense, bench, batch):
    result = Pipeline([QuantizeStatic()])(dense, bench(dense, batch))
    assert result.model.outputs == ("y",)
    assert [each.name for each in result.model.inputs] == ["x"]


def test_a_convolution_as_output_keeps_its_name(build, bench, run, random):
    weight = random.standard_normal((8, 8, 3, 3), np.float32)
    model = build([node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=("n", 8, 6, 6))
    x = random.standard_normal((2, 8, 6, 6), np.float32)
    kept = Pipeline([QuantizeStatic()])(model, bench(model, x)).model
    assert kept.outputs == ("y",)
    assert sqnr(run(model, x)[0], run(kept, x)[0]) < np.inf  # codes, so not the same


def test_raises_the_opset_and_says_so(build, bench, run, fused, random):
    weights = {"w": random.standard_normal((16, 8, 3, 3), np.float32), "v": random.standard_normal((16, 4), np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Squeeze", ["p"], ["s"], axes=[2, 3]),
        node("Gemm", ["s", "v"], ["y"]),
    ]
    model = build(nodes, weights, x=("n", 8, 6, 6), opset=11)
    x = random.standard_normal((2, 8, 6, 6), np.float32)
    result = QuantizeStatic()(model, bench(model, x))
    assert result.model.opset == 13
    assert any("opset 11 became 13" in each.action for each in result.report.changes)
    assert fused(result.model)["QGemm"] == 1
    assert all(each.op != "Constant" for each in result.model.graph.nodes)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 25


def test_says_why_the_opset_cannot_be_raised(dense, bench, batch, monkeypatch):
    def refuse(model, version):
        raise ModelError(f"cannot raise opset 11 to {version}: no adapter")

    monkeypatch.setattr(static, "raise_opset", refuse)
    dense.header.opset_import[0].version = 11
    result = QuantizeStatic()(dense, bench(dense, batch))
    assert "no adapter; export the model with opset 13 or newer" in result.report.changes[0].action
    assert result.model.weight_bytes() < 0.4 * dense.weight_bytes()


def test_leaves_the_opset_where_nothing_runs_on_codes(build, bench):
    model = build([node("Relu", ["x"], ["y"])], {}, x=("n", 4), opset=11)
    result = QuantizeStatic()(model, bench(model, np.ones((1, 4), np.float32)))
    assert result.model.opset == 11
    assert not result.report.changes


def test_a_weight_shared_by_two_layers_is_stored_once(build, bench, run, random):
    weights = {"w": random.standard_normal((32, 32), np.float32) / 6}
    model = build([node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["y"])], weights, x=("n", 32))
    x = random.standard_normal((8, 32), np.float32)
    result = QuantizeStatic()(model, bench(model, x))
    stored = [each for each in result.model.constants() if each.shape == (32, 32)]
    assert [each.dtype for each in stored] == [np.int8]
    assert [each.site for each in result.report.changes if each.site != "graph"] == ["MatMul_a"]
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 30


def test_a_tied_embedding_shares_codes_with_its_layer(build, random):
    table = random.standard_normal((50, 32), np.float32)
    nodes = [
        node("Gather", ["w", "x"], ["e"]),
        node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "w"], ["y"], transB=1),
    ]
    model = build(nodes, {"w": table}, x=("n", 6), dtype=onnx.TensorProto.INT64, gives=onnx.TensorProto.FLOAT)
    feed = open_feed([{"x": random.integers(0, 50, (4, 6))}], inputs=model.inputs)
    quantized = QuantizeStatic()(model, Workbench(feed=feed)).model
    assert sum(each.shape == (50, 32) for each in quantized.constants()) == 1
    assert quantized.weight_bytes() < 0.35 * model.weight_bytes()


def test_a_constant_activation_has_a_scale(build, bench, run, random):
    nodes = [node("Mul", ["x", "zero"], ["o"]), node("MatMul", ["o", "w"], ["y"])]
    weights = {"zero": np.float32(0), "w": random.standard_normal((16, 16), np.float32)}
    model = build(nodes, weights, x=("n", 16))
    x = np.ones((2, 16), np.float32)
    np.testing.assert_array_equal(run(QuantizeStatic()(model, bench(model, x)).model, x)[0], 0)


def test_refuses_nan_in_the_samples(dense, bench, batch):
    batch[3, 4] = np.nan
    with pytest.raises(FeedError, match="NaN or infinite numbers in input 'x'"):
        QuantizeStatic()(dense, bench(dense, batch))


def test_asks_for_samples(dense):
    with pytest.raises(FeedError, match="give some with --data"):
        QuantizeStatic()(dense)


def test_needs_no_samples_where_nothing_runs_on_codes(build):
    model = build([node("Relu", ["x"], ["y"])], {}, x=("n", 4))
    assert not QuantizeStatic()(model).report.changes


def test_a_quantized_model_stays_as_it_is(dense, bench, batch):
    once = QuantizeStatic()(dense, bench(dense, batch)).model
    again = QuantizeStatic()(once, bench(once, batch))
    assert not again.report.changes
    assert "7 nodes work on codes already" in again.report.skips[0].reason


def test_weights_have_seven_bits_or_no_sign_where_products_saturate(dense, bench, batch, monkeypatch):
    monkeypatch.setattr(static, "detect", lambda: Host("x86_64", frozenset({"avx2"})))
    result = QuantizeStatic()(dense, bench(dense, batch))
    for codes, _ in weights_of(result.model).values():
        assert codes.dtype == np.uint8 or np.abs(codes.astype(int)).max() == 64
    assert any(each.action.endswith(": x86_64 without VNNI runs it") for each in result.report.changes)


def test_weights_have_seven_bits_on_request(dense, bench, batch):
    result = QuantizeStatic(reduce_range=True)(dense, bench(dense, batch))
    assert max(np.abs(codes.astype(int)).max() for codes, _ in weights_of(result.model).values()) == 64
    assert result.report.changes[-1].action == "weights of 7 bits: as asked for"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "int4"}, "activation must be uint8 or int8, got 'int4'"),
        ({"ops": ["Conv", "Softmax"]}, "ops must be a list of Conv"),
        ({"layer_sqnr": -1}, "layer_sqnr must be a number of at least 0, got -1"),
        ({"per_channel": 1}, "per_channel must be true or false, got 1"),
        ({"reduce_range": "no"}, "reduce_range must be true or false, or left out, got 'no'"),
    ],
)
def test_refuses_options_by_name(options, text):
    with pytest.raises(ConfigError, match=text):
        QuantizeStatic(**options)
