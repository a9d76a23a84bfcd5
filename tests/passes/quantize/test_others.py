"""Every weight that ONNX Runtime cannot compute with on codes ends as a skip, or stored in 8 bits, with the reason."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.passes.quantize.dynamic import QuantizeDynamic
from onnxpress.rewriter.model import Model

IDS = {"dtype": onnx.TensorProto.INT64, "gives": onnx.TensorProto.FLOAT}


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


STORED = {
    "ConvTranspose": ([node("ConvTranspose", ["x", "w"], ["y"])], (8, 12, 3, 3), (2, 8, 5, 5), "no ConvTranspose on"),
    "Conv 1-D": ([node("Conv", ["x", "w"], ["y"])], (12, 8, 5), (2, 8, 9), "no Conv that is faster"),
    "Conv 3-D": ([node("Conv", ["x", "w"], ["y"])], (12, 8, 3, 3, 3), (2, 8, 5, 5, 5), "no Conv that is faster"),
    "Conv grouped": ([node("Conv", ["x", "w"], ["y"], group=4)], (64, 4, 3, 3), (2, 16, 5, 5), "no Conv that is"),
    "MatMul on the left": ([node("MatMul", ["w", "x"], ["y"])], (40, 32), (32, 5), "weight is on the left"),
    "MatMul stacked": ([node("MatMul", ["x", "w"], ["y"])], (3, 32, 40), (3, 5, 32), "stack of matrices"),
    "Gemm transA": ([node("Gemm", ["x", "w"], ["y"], transA=1)], (32, 40), (32, 5), "no 8-bit Gemm with transA"),
    "Gemm alpha": ([node("Gemm", ["x", "w"], ["y"], alpha=0.5)], (32, 40), (5, 32), "no 8-bit Gemm with"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "shape", "x", "reason"), STORED.values(), ids=STORED)
def test_weights_of_other_layers_are_stored_in_8_bits(build, run, random, nodes, shape, x, reason):
    model = build(nodes, {"w": random.standard_normal(shape, np.float32)}, x=x)
    result, batch = QuantizeDynamic()(model), random.standard_normal(x, np.float32)
    (change,) = result.report.changes
    assert change.action.startswith("int8 in the file, float when it runs: ")
    assert reason in change.action
    assert not result.report.skips
    reference, test = run(model, batch)[0], run(result.model, batch)[0]
    assert 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum()) > 30


SKIPPED = {
    "Einsum": [node("Einsum", ["x", "w"], ["y"], equation="bi,io->bo")],
    "Gather": [node("Gather", ["w", "i"], ["t"], axis=1), node("MatMul", ["x", "t"], ["y"])],
    "Add": [node("MatMul", ["x", "v"], ["t"]), node("Add", ["t", "w"], ["y"])],
}


@pytest.mark.parametrize("op", SKIPPED)
def test_large_constants_that_are_no_weights_are_named(build, random, op):
    kept = {"w": random.standard_normal((32, 40), np.float32), "v": np.ones((32, 1), np.float32), "i": np.array([0, 3])}
    used = {name: array for name, array in kept.items() if any(name in each.input for each in SKIPPED[op])}
    report = QuantizeDynamic()(build(SKIPPED[op], used, x=(32, 32))).report
    skips = {each.site: each.reason for each in report.skips}
    assert skips["w"] == f"stays float32: {op} reads it, which has no form on codes"


def test_small_constants_and_biases_are_not_worth_a_word(build, random):
    weights = {"w": random.standard_normal((32, 40), np.float32), "b": np.ones((1, 40), np.float32)}
    model = build([node("MatMul", ["x", "w"], ["t"]), node("Add", ["t", "b"], ["y"])], weights, x=("n", 32))
    assert not QuantizeDynamic()(model).report.skips


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_are_skipped_by_name(build, random, dtype):
    weights = {"w": random.standard_normal((32, 40)).astype(dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = build([node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 32), dtype=kind)
    report = QuantizeDynamic()(model).report
    assert [each.reason for each in report.skips] == [
        f"its weight is {np.dtype(dtype).name}; only float32 is quantized"
    ]
    assert not [each for each in report.changes if each.site != "graph"]


def test_a_constant_that_callers_may_override_is_left(random):
    weight = random.standard_normal((32, 40)).astype(np.float32)
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [5, 32]), ("w", [32, 40]))]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], ["y"])], "g", ends, [out], [numpy_helper.from_array(weight, "w")]
    )
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    (skip,) = QuantizeDynamic()(model).report.skips
    assert skip.site == "w"
    assert "a caller may give another" in skip.reason


def test_a_sparse_weight_is_stored_as_codes(random, run):
    weight = np.where(random.random((64, 64)) < 0.5, random.standard_normal((64, 64)), 0).astype(np.float32)
    values, indices = weight[weight != 0], np.flatnonzero(weight)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values, "w"), numpy_helper.from_array(indices.astype(np.int64), "w_indices"), [64, 64]
    )
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 64]) for n in "xy"]
    graph = helper.make_graph([node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], sparse_initializer=[sparse])
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    result, x = QuantizeDynamic()(model), random.standard_normal((5, 64), np.float32)
    assert result.report.changes
    np.testing.assert_allclose(run(result.model, x)[0], x @ weight, atol=0.5, rtol=0)  # 8 bits of 64 products


def test_embeddings_inside_of_a_loop_stay_codes(random):
    """EmbeddingBag as PyTorch exports it: rows looked up and summed in a Loop, a bag at a time."""
    table = random.standard_normal((50, 32)).astype(np.float32)
    info = helper.make_tensor_value_info
    inner = [
        helper.make_node("Gather", ["x", "i"], ["bag"]),
        helper.make_node("Gather", ["table", "bag"], ["rows"], name="lookup"),
        helper.make_node("ReduceSum", ["rows", "zero"], ["sum"], keepdims=0),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    kinds = onnx.TensorProto
    body = helper.make_graph(
        inner, "body", [info("i", kinds.INT64, []), info("go", kinds.BOOL, [])],
        [info("on", kinds.BOOL, []), info("sum", kinds.FLOAT, [32])],
    )  # fmt: skip
    constants = {"table": table, "zero": np.array([0]), "bags": np.array(4), "true": np.array(True)}
    loop = helper.make_node("Loop", ["bags", "true"], ["y"], body=body)
    ends = [info("x", kinds.INT64, [4, 3])], [info("y", kinds.FLOAT, [4, 32])]
    graph = helper.make_graph([loop], "g", *ends, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    result = QuantizeDynamic()(model)
    assert [(each.site, each.action) for each in result.report.changes] == [
        ("lookup", "int8 in the file, float when it runs")
    ]
    assert result.model.weight_bytes() < 0.4 * table.nbytes


def test_forms_of_onnxruntimes_optimizer_say_so(build, random):
    weights = {"w": random.standard_normal((32, 40), np.float32)}
    model = build([node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")], weights, x=("n", 32))
    model.import_domain("com.microsoft", 1)
    assert "a form that ONNX Runtime's optimizer made" in QuantizeDynamic()(model).report.changes[0].action
