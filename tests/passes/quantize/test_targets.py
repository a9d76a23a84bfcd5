import math

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.quantize import plan, static
from onnxpress.passes.quantize.host import Host
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.quantize.targets import (
    TARGETS,
    caution,
    choose_target,
    own_target,
    say_codes,
)
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.weights import read

VNNI = Host("x86_64", frozenset({"avx2", "avx512_vnni"}))
AVX2 = Host("x86_64", frozenset({"avx2"}))
ARM = Host("aarch64", None)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


def codes_of(model, op):
    """The types of the codes that layers of one operator read: activations, weights, biases."""
    layer = next(each for each in model.graph.nodes if each.op == op)
    sources = [each.inputs[0] if each.inputs else None for each in layer.inputs]
    return [
        None if s is None else read(s.inputs[2]).dtype if len(s.inputs) > 2 else read(s.inputs[0]).dtype
        for s in sources
    ]


@pytest.fixture
def residual(build, random):
    """x -> Conv -> Relu -> (Conv -> Relu -> Conv) + itself -> Relu -> Conv -> y."""
    weights = {name: random.standard_normal((16, 16, 3, 3), np.float32) / 12 for name in "uvwk"}
    weights |= {f"{name}b": random.standard_normal(16, np.float32) / 4 for name in "uvwk"}
    conv = [("x", "u", "a"), ("r", "v", "b"), ("s", "w", "c"), ("t", "k", "y")]
    convs = [node("Conv", [x, w, f"{w}b"], [y], pads=[1, 1, 1, 1]) for x, w, y in conv]
    nodes = [
        convs[0],
        node("Relu", ["a"], ["r"]),
        convs[1],
        node("Relu", ["b"], ["s"]),
        convs[2],
        node("Add", ["c", "r"], ["d"]),
        node("Relu", ["d"], ["t"]),
        convs[3],
    ]
    return build(nodes, weights, x=("n", 16, 8, 8))


@pytest.fixture
def image(random):
    return random.standard_normal((2, 16, 8, 8), np.float32)


@pytest.mark.parametrize(("host", "name"), [(VNNI, "cpu-vnni"), (AVX2, "cpu-avx2"), (ARM, "arm")])
def test_a_cpu_is_a_target(host, name):
    assert own_target(host).name == name
    assert choose_target(None, host) is TARGETS[name]
    assert caution(TARGETS[name], host) is None


def test_says_where_a_target_is_another_machine():
    said = caution(TARGETS["cpu-avx2"], VNNI)
    assert said == (
        "made for cpu-avx2, tried on x86_64 with avx512_vnni: speed and saturation on the target were not measured"
    )
    assert "its speed was not measured" in caution(TARGETS["npu"], AVX2)
    assert "take target tensorrt" in caution(TARGETS["cuda"], AVX2)


def test_says_which_codes_and_why():
    assert say_codes(TARGETS["cpu-vnni"], {"int8"}, VNNI) == "weights of 8 bits: x86_64 with avx512_vnni runs it"
    both = say_codes(TARGETS["cpu-avx2"], {"int7", "uint8"}, VNNI)
    assert both == "weights of 7 bits and 8 bits without sign: made for cpu-avx2"
    assert say_codes(TARGETS["cpu-vnni"], {"int8"}, VNNI, asked="as asked for").endswith(": as asked for")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_runs_and_stays_close_to_float(residual, image, bench, run, target):
    result = QuantizeStatic(target=target)(residual, bench(residual, image))
    assert sqnr(run(residual, image)[0], run(result.model, image)[0]) > 30
    assert len([each for each in result.report.changes if "per channel" in each.action]) >= 4


@pytest.mark.parametrize(
    ("target", "activation", "weight", "bias"),
    [
        ("cpu-vnni", "uint8", "int8", "int32"),
        ("arm", "uint8", "int8", "int32"),
        ("tensorrt", "int8", "int8", None),
        ("cuda", "int8", "int8", None),
        ("npu", "uint16", "int8", "int32"),
    ],
)
def test_codes_are_those_of_the_target(residual, image, bench, target, activation, weight, bias):
    model = QuantizeStatic(target=target)(residual, bench(residual, image)).model
    assert codes_of(model, "Conv") == [activation, weight, bias]


def test_tensorrt_gets_symmetric_codes_before_layers_and_one_side_of_a_residual_add(residual, image, bench):
    result = QuantizeStatic(target="tensorrt")(residual, bench(residual, image))
    coded = [each for each in result.model.graph.nodes if each.op == "QuantizeLinear"]
    assert all(not read(each.inputs[2]).any() for each in coded)
    add = next(each for each in result.model.graph.nodes if each.op == "Add")
    assert [each.inputs[0].op for each in add.inputs] == ["Conv", "DequantizeLinear"]
    assert {each.inputs[0].name for each in coded} == {"x", "r", "s", "t"}
    assert result.report.tensors["c"] == "float: Add fuses with it"


def test_tensorrt_leaves_an_add_without_a_layer_in_float(build, bench, random):
    weight = {"w": random.standard_normal((16, 16), np.float32)}
    model = build([node("Add", ["x", "x"], ["a"]), node("MatMul", ["a", "w"], ["y"])], weight, x=("n", 16))
    result = QuantizeStatic(target="tensorrt")(model, bench(model, random.standard_normal((8, 16), np.float32)))
    assert result.report.tensors["x"] == "float: Add computes in float: neither side is a layer it fuses with"


def test_npu_has_codes_of_16_bits_on_every_tensor(residual, image, bench):
    result = QuantizeStatic(target="npu")(residual, bench(residual, image))
    assert result.model.opset == 21
    kinds = {reason.split(":")[0] for reason in result.report.tensors.values()}
    assert kinds == {"codes", "none"}  # none: what Relu reads, which vanishes into the layer before it
    assert not any("float" in each.action for each in result.report.changes)


def test_npu_has_codes_for_softmax_normalisation_and_constants(build, bench, run, random):
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("LayerNormalization", ["m", "g", "b"], ["l"]),
        node("Add", ["l", "c"], ["a"]),
        node("Softmax", ["a"], ["y"]),
    ]
    weights = {"w": random.standard_normal((16, 16), np.float32) / 4, "g": np.ones(16, np.float32)}
    weights |= {name: random.standard_normal(16, np.float32) for name in "bc"}
    model = build(nodes, weights, x=("n", 16))
    x = random.standard_normal((32, 16), np.float32)
    quantized = QuantizeStatic(target="npu")(model, bench(model, x)).model
    for each in quantized.graph.nodes:
        if each.op in ("LayerNormalization", "Add", "Softmax"):
            assert all(t.inputs[0].op == "DequantizeLinear" for t in each.inputs)
    assert sqnr(run(model, x)[0], run(quantized, x)[0]) > 35


def test_npu_leaves_a_model_without_layers_as_it_is(build, bench, image):
    model = build([node("Relu", ["x"], ["y"])], {}, x=("n", 16, 8, 8))
    result = QuantizeStatic(target="npu")(model, bench(model, image))
    assert not result.report.changes
    assert [each.op for each in result.model.graph.nodes] == ["Relu"]


def test_npu_computes_transposed_convolutions_on_codes(build, bench, run, random):
    weights = {"w": random.standard_normal((8, 4, 3), np.float32), "b": random.standard_normal(4, np.float32)}
    model = build([node("ConvTranspose", ["x", "w", "b"], ["y"])], weights, x=("n", 8, 16))
    x = random.standard_normal((2, 8, 16), np.float32)
    quantized = QuantizeStatic(target="npu")(model, bench(model, x)).model
    assert codes_of(quantized, "ConvTranspose") == ["uint16", "int8", "int32"]
    assert sqnr(run(model, x)[0], run(quantized, x)[0]) > 35


def test_a_padding_mask_does_not_cost_the_scores_their_resolution(build, bench, run, random):
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Greater", ["x", "zero"], ["p"]),
        node("Where", ["p", "least", "zero"], ["k"]),
        node("Add", ["m", "k"], ["a"]),
        node("Softmax", ["a"], ["y"]),
    ]
    weights = {"w": random.standard_normal((16, 16), np.float32), "zero": np.float32(0)}
    weights["least"] = np.float32(np.finfo(np.float32).min)
    model = build(nodes, weights, x=("n", 16))
    x = random.standard_normal((32, 16), np.float32)
    quantized = QuantizeStatic(target="npu")(model, bench(model, x)).model
    assert sqnr(run(model, x)[0], run(quantized, x)[0]) > 30


@pytest.fixture
def fine(build, random):
    """Weights whose last bit makes most of the error, since the activations are codes already."""
    weight = random.standard_normal((64, 16), np.float32)
    model = build([node("Gemm", ["x", "w"], ["y"])], {"w": weight}, x=("n", 64))
    x = random.integers(0, 256, (64, 64)).astype(np.float32)
    x[0, :2] = 0, 255
    return model, x


def test_avx2_takes_wider_weights_where_they_are_measured_better(fine, bench, run):
    model, x = fine
    reports = {}
    for target in ("cpu-avx2", "cpu-vnni"):
        result = QuantizeStatic(target=target, rounding="nearest")(model, bench(model, x))
        reports[target] = result.report.changes[0].action
        assert codes_of(result.model, "Gemm")[:2] == ["uint8", "uint8" if target == "cpu-avx2" else "int8"]
        assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 40
    assert reports["cpu-avx2"].startswith("uint8 per channel, activations uint8")


def test_avx2_keeps_seven_bits_where_the_last_one_matters_little(build, bench, random):
    weight = {"w": np.sign(random.standard_normal((64, 16))).astype(np.float32)}  # exact in 7 bits
    model = build([node("MatMul", ["x", "w"], ["y"])], weight, x=("n", 64))
    result = QuantizeStatic(target="cpu-avx2")(model, bench(model, random.standard_normal((64, 64), np.float32)))
    assert codes_of(result.model, "MatMul")[1] == "int8"
    assert result.report.changes[-1].action == "weights of 7 bits: made for cpu-avx2"


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_layers_of_unsigned_weights_run_on_codes(build, bench, run, fused, random, monkeypatch, op):
    monkeypatch.setattr(plan, "GAIN", -math.inf)
    weight = random.standard_normal((16, 16, 3, 3) if op == "Conv" else (16, 16), np.float32)
    shape = ("n", 16, 4, 4) if op == "Conv" else ("n", 16)
    attrs = {"pads": [1, 1, 1, 1]} if op == "Conv" else {}
    nodes = [node(op, ["x", "w"], ["a"], **attrs), node(op, ["a", "w"], ["y"], **attrs)]
    model = build(nodes, {"w": weight}, x=shape)
    batch = random.standard_normal([8 if size == "n" else size for size in shape], np.float32)
    result = QuantizeStatic(target="cpu-avx2")(model, bench(model, batch))
    assert "uint8 per channel" in result.report.changes[0].action
    found = fused(result.model)
    assert not found[op]
    assert sum(found[name] for name in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")) == 2
    assert sqnr(run(model, batch)[0], run(result.model, batch)[0]) > 30


def test_a_weight_that_is_also_read_in_float_keeps_its_sign(build, random, bench):
    table = random.standard_normal((64, 64), np.float32)
    nodes = [
        node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64),
        node("Gather", ["w", "i"], ["e"]),
        node("ReduceMax", ["e"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "w"], ["y"], transB=1),
    ]
    model = build(nodes, {"w": table}, x=("n", 6))
    batch = random.integers(0, 64, (8, 6)).astype(np.float32)
    quantized = QuantizeStatic(target="cpu-avx2", layer_sqnr=0)(model, bench(model, batch)).model
    assert [each.dtype for each in quantized.constants() if each.shape == (64, 64)] == [np.int8]


def test_the_host_is_the_target_unless_another_is_asked_for(residual, image, bench, monkeypatch):
    monkeypatch.setattr(static, "detect", lambda: AVX2)
    own = QuantizeStatic()(residual, bench(residual, image)).report
    assert "x86_64 without VNNI runs it" in own.changes[-1].action
    assert not own.warnings
    other = QuantizeStatic(target="cpu-vnni")(residual, bench(residual, image)).report
    assert other.changes[-1].action == "weights of 8 bits: made for cpu-vnni"
    assert other.warnings == [caution(TARGETS["cpu-vnni"], AVX2)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "gpu"}, "target must be cpu-avx2 or cpu-vnni or arm or cuda or tensorrt or npu, got 'gpu'"),
        ({"target": "tensorrt", "activation": "uint8"}, "activation must be int8 for target tensorrt, got 'uint8'"),
    ],
)
def test_refuses_options_by_name(options, text):
    with pytest.raises(ConfigError, match=text):
        QuantizeStatic(**options)
