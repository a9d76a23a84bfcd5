import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.coding import Coded
from onnxpress.passes.quantize.dynamic import QuantizeDynamic, _Writer
from onnxpress.passes.quantize.host import detect
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.weights import read

IDS = {"dtype": onnx.TensorProto.INT64, "gives": onnx.TensorProto.FLOAT}


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.fixture
def weights(random):
    return {
        "m": random.standard_normal((32, 48), np.float32),
        "g": random.standard_normal((48, 32), np.float32),
        "b": random.standard_normal(48, np.float32),
    }


@pytest.mark.parametrize(
    ("nodes", "becomes"),
    [
        ([node("MatMul", ["x", "m"], ["y"])], "DynamicQuantizeMatMul"),
        ([node("MatMul", ["x", "m"], ["p"]), node("Add", ["p", "b"], ["y"])], "DynamicQuantizeMatMul"),
        ([node("Gemm", ["x", "m"], ["y"])], "DynamicQuantizeMatMul"),
        ([node("Gemm", ["x", "g", "b"], ["y"], transB=1)], "DynamicQuantizeMatMul"),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_onnxruntime_merges_the_product(build, run, fused, random, weights, nodes, becomes, per_channel):
    used = {name: array for name, array in weights.items() if any(name in each.input for each in nodes)}
    model, x = build(nodes, used, x=("n", 32)), random.standard_normal((16, 32), np.float32)
    quantized = QuantizeDynamic(per_channel=per_channel)(model).model
    assert fused(quantized) == {becomes: 1}
    assert sqnr(run(model, x)[0], run(quantized, x)[0]) > 35


def test_layers_with_the_same_input_share_its_codes(build, fused, weights):
    weights["n"] = weights["m"][:, ::-1].copy()
    nodes = [node("MatMul", ["x", "m"], ["p"]), node("MatMul", ["x", "n"], ["q"]), node("Add", ["p", "q"], ["y"])]
    model = build(nodes, {name: weights[name] for name in "mn"}, x=("n", 32))
    assert fused(QuantizeDynamic()(model).model) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2, "Add": 1}


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_channel", [True, False])
def test_layers_of_one_shape_keep_their_own_weights_and_scales(build, run, random, transposed, per_channel):
    sizes = [1.0, 8.0, 0.125, 20.0, 0.5, 3.0, 0.25, 2.0]
    weights = {f"w{i}": random.standard_normal((24, 24), np.float32) * size for i, size in enumerate(sizes)}
    names = [f"y{i}" for i in range(len(sizes))]
    nodes = [node("Gemm", ["x", f"w{i}"], [name], transB=transposed) for i, name in enumerate(names)]
    model, x = build(nodes, weights, x=("n", 24), outputs=names), random.standard_normal((16, 24), np.float32)
    found = run(QuantizeDynamic(per_channel=per_channel)(model).model, x)
    for weight, result in zip(weights.values(), found, strict=True):
        assert sqnr(x @ (weight.T if transposed else weight), result) > 33


@pytest.mark.parametrize("kept", ["scale", "weight"])
def test_a_freed_weight_lends_its_scale_and_codes_to_no_other(build, weights, kept):
    writer = _Writer(build([node("MatMul", ["x", "m"], ["y"])], {"m": weights["m"]}, x=("n", 32)))
    found = []
    for value in range(100):  # each is freed before the next one, which now and then gets its identity
        coded = Coded(gs.Constant("w", np.full((2, 3), value, np.int8)), np.asarray(value, np.float32), None, 0.0)
        found.append(writer._scale(coded) if kept == "scale" else writer._weight(coded, transposed=True))
        del coded
    assert [float(read(each).max()) for each in found] == list(range(100))


def test_raises_the_opset_and_says_so(build, weights):
    model = build([node("MatMul", ["x", "m"], ["y"])], {"m": weights["m"]}, x=("n", 32), opset=9)
    result = QuantizeDynamic()(model)
    assert result.model.opset == 11
    assert any("opset 9 became 11" in each.action for each in result.report.changes)


def test_convolutions_are_stored_small_and_run_in_float(build, run, fused, random):
    weights = {"w": random.standard_normal((16, 16, 3, 3), np.float32)}
    model = build([node("Conv", ["x", "w"], ["y"])], weights, x=("n", 16, 8, 8))
    result, x = QuantizeDynamic()(model), random.standard_normal((2, 16, 8, 8), np.float32)
    assert "no Conv that is faster" in result.report.changes[0].action
    assert result.model.weight_bytes() < 0.3 * model.weight_bytes()
    assert fused(result.model)["Conv"] == 1
    assert set(fused(result.model)) <= {"Conv", "ReorderInput", "ReorderOutput"}
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 35


@pytest.mark.parametrize("per_channel", [True, False])
def test_embeddings_stay_codes_in_memory(build, run, fused, random, per_channel):
    weights = {"w": random.standard_normal((100, 16), np.float32)}
    model = build([node("Gather", ["w", "x"], ["y"])], weights, x=("n", 5), **IDS)
    quantized = QuantizeDynamic(per_channel=per_channel)(model).model
    x = random.integers(0, 100, (3, 5))
    assert sqnr(run(model, x)[0], run(quantized, x)[0]) > 35
    assert fused(quantized)["Gather"] == 1 + per_channel
    assert quantized.weight_bytes() <= 100 * 16 + 100 * 4


def test_embeddings_are_left_alone_on_request(build, random):
    weights = {"w": random.standard_normal((100, 16), np.float32)}
    model = build([node("Gather", ["w", "x"], ["y"])], weights, x=("n", 5), **IDS)
    report = QuantizeDynamic(embeddings=False)(model).report
    assert report.skips[0].reason == "is an embedding; set embeddings to store it as int8"


def test_keeps_names_and_invariants_in_a_pipeline(build, weights):
    nodes = [node("Gemm", ["x", "g", "b"], ["y"], transB=1)]
    model = build(nodes, {name: weights[name] for name in "gb"}, x=("n", 32))
    assert Pipeline([QuantizeDynamic()])(model).model.outputs == ("y",)


def test_gives_the_same_bytes_every_time(build, weights):
    model = build([node("MatMul", ["x", "m"], ["y"])], {"m": weights["m"]}, x=("n", 32))
    first, second = (QuantizeDynamic()(model).model.to_proto().SerializeToString() for _ in range(2))
    assert first == second


def test_is_made_for_another_cpu_on_request(build, weights):
    model = build([node("MatMul", ["x", "m"], ["y"])], {"m": weights["m"]}, x=("n", 32))
    for target, bits in (("cpu-avx2", 7), ("cpu-vnni", 8), ("arm", 8)):
        report = QuantizeDynamic(target=target)(model).report
        assert report.changes[-1].action.startswith(f"weights of {bits} bits")
    assert "made for arm, tried on" in report.warnings[0] or "arm" in detect().machine


@pytest.mark.parametrize("field", ["target", "per_channel", "reduce_range", "embeddings", "layer_sqnr"])
def test_refuses_options_by_name(field):
    with pytest.raises(ConfigError, match=field):
        QuantizeDynamic(**{field: "yes"})
