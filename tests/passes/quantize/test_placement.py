import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.placement import place
from onnxpress.passes.quantize.static import QuantizeStatic

IMAGE = ("n", 16, 8, 8)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def conv(source, out, weight="w", **attrs):
    return node("Conv", [source, weight], [out], pads=[1, 1, 1, 1], **attrs)


@pytest.fixture
def weights(random):
    return {
        "w": random.standard_normal((16, 16, 3, 3), np.float32) / 12,
        "v": random.standard_normal((16, 16, 3, 3), np.float32) / 12,
        "thin": random.standard_normal((16, 1, 3, 3), np.float32) / 3,
        "m": random.standard_normal((16, 24), np.float32) / 4,
        "g": random.standard_normal((32, 1024), np.float32) / 30,
        "b": random.standard_normal(24, np.float32),
        "six": np.float32(6),
        "zero": np.float32(0),
        "one": np.float32(1),
        "rows": np.array([0, -1], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "many": np.array([8], np.int64),
        "axis": np.array([3], np.int64),
        "twice": np.array([1, 1, 2, 2], np.int64),
        "shape": np.array([1, 16, 8, 8], np.int64),
        "larger": np.array([1, 1, 2, 2], np.float32),
    }


@pytest.fixture
def optimised(build, bench, fused, weights, random):
    """What ONNX Runtime makes of some nodes after quantization."""

    def count(*nodes, x=IMAGE):
        used = {name for each in nodes for name in each.input}
        model = build(nodes, {name: array for name, array in weights.items() if name in used}, x=x)
        batch = random.standard_normal([2 if size == "n" else size for size in x], np.float32)
        return fused(QuantizeStatic()(model, bench(model, batch)).model)

    return count


def test_conv_becomes_qlinear_conv(optimised):
    found = optimised(conv("x", "y"))
    assert found["QLinearConv"] == 1
    assert not found["Conv"]


@pytest.mark.parametrize(
    ("op", "bounds"), [("Relu", ()), ("Clip", ("zero", "six")), ("Clip", ("zero", "one")), ("Clip", ("zero",))]
)
def test_relu_and_clip_vanish_into_the_codes(optimised, op, bounds):
    found = optimised(conv("x", "a"), node(op, ["a", *bounds], ["r"]), conv("r", "y", "v"))
    assert found["QLinearConv"] == 2
    assert not found[op]
    assert found["DequantizeLinear"] == 1


def test_clip_beside_zero_stays(optimised):
    found = optimised(conv("x", "a"), node("Clip", ["a", "one", "six"], ["r"]), conv("r", "y", "v"))
    assert found["QLinearConv"] == 2
    assert found["Clip"] == 1


def test_residual_add_runs_on_codes(optimised):
    nodes = conv("x", "a"), conv("a", "b1", "v"), node("Add", ["a", "b1"], ["s"]), node("Relu", ["s"], ["r"])
    found = optimised(*nodes, conv("r", "y"))
    assert found["QLinearAdd"] == 1
    assert not found["Relu"]
    assert found["QLinearConv"] == 3


def test_add_of_a_float_branch_stays_float(optimised):
    nodes = conv("x", "a"), node("Sigmoid", ["a"], ["h"]), node("Add", ["a", "h"], ["s"])
    found = optimised(*nodes, conv("s", "y", "v"))
    assert found["Add"] == 1
    assert not found["QLinearAdd"]


@pytest.mark.parametrize(
    ("op", "attrs", "becomes"),
    [
        ("MaxPool", {"kernel_shape": [2, 2]}, {"MaxPool", "NhwcMaxPool"}),
        ("AveragePool", {"kernel_shape": [2, 2]}, {"QLinearAveragePool"}),
        ("GlobalAveragePool", {}, {"QLinearGlobalAveragePool"}),
        ("Transpose", {"perm": [0, 1, 3, 2]}, {"Transpose"}),
    ],
)
def test_what_lies_between_layers_runs_on_codes(optimised, op, attrs, becomes):
    found = optimised(conv("x", "a"), node(op, ["a"], ["p"], **attrs), conv("p", "y", "v"))
    assert any(found[name] for name in becomes)
    assert found["QLinearConv"] == 2
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("Slice", ("first", "many", "axis"), {}),
        ("Gather", ("rows",), {"axis": 3}),
        ("Tile", ("twice",), {}),
        ("Resize", ("", "larger"), {"mode": "nearest"}),
        ("LeakyRelu", (), {"alpha": 0.1}),
    ],
)
def test_what_only_moves_or_bends_values_runs_on_codes(optimised, op, inputs, attrs):
    found = optimised(conv("x", "a"), node(op, ["a", *inputs], ["p"], **attrs), conv("p", "y", "v"))
    assert found[op] + found[f"QLinear{op}"] == 1
    assert found["QLinearConv"] == 2
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


def test_resize_that_interpolates_stays_float(optimised):
    resize = node("Resize", ["a", "", "larger"], ["p"], mode="linear")
    found = optimised(conv("x", "a"), resize, conv("p", "y", "v"))
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (2, 2)


def test_product_of_two_branches_runs_on_codes(optimised):
    nodes = conv("x", "a"), conv("a", "c", "v"), node("Mul", ["a", "c"], ["j"])
    found = optimised(*nodes, conv("j", "y"))
    assert found["QLinearMul"] == 1
    assert found["QLinearConv"] == 3
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


def test_expand_runs_on_codes(optimised):
    column = node("Slice", ["a", "first", "second", "axis"], ["s"])
    found = optimised(conv("x", "a"), column, node("Expand", ["s", "shape"], ["p"]), conv("p", "y", "v"))
    assert found["Expand"] == 1
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


def test_hard_swish_between_layers_stays_float(optimised):
    found = optimised(conv("x", "a"), node("HardSwish", ["a"], ["p"]), conv("p", "y", "v"))
    assert found["HardSigmoid"] == found["Mul"] == 1  # what ONNX Runtime makes of it
    assert found["QLinearConv"] == 2


def test_product_of_two_activations_stays_float(optimised):
    nodes = (
        node("MatMul", ["x", "m"], ["q"]),
        node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["q", "t"], ["y"]),
    )
    found = optimised(*nodes, x=("n", 5, 16))
    assert found["MatMulIntegerToFloat"] == 1
    assert found["MatMul"] + found["FusedMatMul"] == 1


def test_concat_runs_on_codes(optimised):
    nodes = conv("x", "a"), conv("a", "c", "v"), node("Concat", ["a", "c"], ["j"], axis=2)
    found = optimised(*nodes, conv("j", "y"))
    assert found["QLinearConcat"] == 1
    assert not found["Concat"]


def test_flatten_and_gemm_run_on_codes(optimised):
    nodes = conv("x", "a"), node("Flatten", ["a"], ["f"]), node("Gemm", ["f", "g"], ["y"], transB=1)
    found = optimised(*nodes)
    assert found["QGemm"] == 1
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)


def test_matmul_that_float_reads_gives_float(optimised):
    nodes = node("MatMul", ["x", "m"], ["p"]), node("Add", ["p", "b"], ["s"]), node("Softmax", ["s"], ["y"])
    found = optimised(*nodes, x=("n", 5, 16))
    assert found["MatMulIntegerToFloat"] == 1
    assert not found["MatMul"]


def test_matmul_that_a_layer_reads_gives_codes(optimised, weights):
    weights["k"] = weights["m"].T.copy()
    found = optimised(node("MatMul", ["x", "m"], ["p"]), node("MatMul", ["p", "k"], ["y"]), x=("n", 5, 16))
    assert found["QLinearMatMul"] == 1
    assert found["MatMulIntegerToFloat"] == 1


def test_sigmoid_between_layers_is_looked_up(optimised):
    found = optimised(conv("x", "a"), node("Sigmoid", ["a"], ["h"]), conv("h", "y", "v"))
    assert found["QLinearConv"] == 2
    assert found["QLinearSigmoid"] == 1


def test_thin_conv_that_float_reads_stays_float(optimised):
    found = optimised(conv("x", "a", "thin", group=16), node("Sigmoid", ["a"], ["y"]))
    assert found["Conv"] == 1
    assert not found["QLinearConv"]


def test_thin_conv_between_layers_runs_on_codes(optimised):
    found = optimised(conv("x", "a"), conv("a", "d", "thin", group=16), node("Relu", ["d"], ["r"]), conv("r", "y", "v"))
    assert found["QLinearConv"] == 3


def test_moves_share_one_scale(build, weights):
    model = build(
        [conv("x", "a"), node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]), conv("p", "y")], weights, x=IMAGE
    )
    layers = [each for each in model.graph.nodes if each.op == "Conv"]
    groups = {each.tensor.name: each.group for each in place(model, layers).tensors}
    assert groups["a"] == groups["p"]
    assert len(set(groups.values())) == 3


def test_barred_tensors_carry_no_codes(build, weights):
    nodes = [conv("x", "a"), node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]), conv("p", "y")]
    model = build(nodes, weights, x=IMAGE)
    layers = [each for each in model.graph.nodes if each.op == "Conv"]
    placement = place(model, layers, barred={id(model.graph.nodes[1].outputs[0])})
    assert [each.name for each in placement.coded.values()] == ["Conv_a"]
    assert {each.tensor.name for each in placement.tensors} == {"x", "a"}


def test_only_the_operators_asked_for_follow(build, weights):
    nodes = [conv("x", "a"), node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]), conv("p", "y")]
    model = build(nodes, weights, x=IMAGE)
    layers = [each for each in model.graph.nodes if each.op == "Conv"]
    assert [each.op for each in place(model, layers, ops=("Conv",)).coded.values()] == ["Conv", "Conv"]
