import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.narrow.float16 import ConvertFloat16


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / max(np.square(reference - test).sum(), 1e-30))


def types(model):
    """The type of what each node of the main graph gives, by the operator and the name of its output."""
    inferred = onnx.shape_inference.infer_shapes(model.to_proto()).graph
    found = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    names = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return {n.op_type: names[found[n.output[0]]] for n in inferred.node if n.output[0] in found}


def reasons(report):
    return " | ".join(f"{skip.site}: {skip.reason}" for skip in report.skips)


def test_values_beyond_the_range_compute_in_float32(build, run, bench, random):
    weights = {"w": random.standard_normal((32, 32), np.float32), "s": np.full(1, 3000, np.float32)}
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Mul", ["p", "s"], ["q"]), node("Div", ["q", "s"], ["r"])]
    model = build([*nodes, node("MatMul", ["r", "w"], ["y"])], weights, x=("n", 32))
    x = 10 * random.standard_normal((16, 32), np.float32)
    result = ConvertFloat16(form="compute")(model, bench(model, x))
    assert types(result.model)["Mul"] == types(result.model)["Div"] == "FLOAT"
    assert types(result.model)["MatMul"] == "FLOAT16"
    assert "values beyond 16376" in reasons(result.report)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 55


def test_without_samples_it_says_that_activations_were_not_checked(linear):
    assert "activations were not checked" in " ".join(ConvertFloat16(form="compute")(linear).report.warnings)


def test_nodes_in_which_infinities_begin_are_found_and_kept(build, run, bench):
    # 256.126 · 255.6876 = 65488.2, but float16 has 256.25 · 255.75 = 65536. ONNX Runtime's CPU provider multiplies in
    # float32, and rounds to float16 only where the next node has a kernel for that, as Concat has.
    weights = {"c": np.full((1, 64), 255.6876, np.float32)}
    nodes = [
        node("Concat", ["x", "x"], ["t"], axis=0),
        node("Mul", ["t", "c"], ["p"]),
        node("Concat", ["p", "p"], ["y"], axis=0),
    ]
    model, x = build(nodes, weights, x=("n", 64)), np.full((2, 64), 256.126, np.float32)
    result = ConvertFloat16(form="compute", headroom=1)(model, bench(model, x))
    assert "Mul_p: gave NaN or infinities in float16 on the samples" in reasons(result.report)
    assert np.isfinite(run(result.model, x)[0]).all()


def test_masks_are_raised_into_the_range(build, run, bench, random):
    weights = {"m": np.array(-3.4e38, np.float32), "one": np.array(1, np.float32)}
    nodes = [
        node("Greater", ["x", "one"], ["g"]),
        node("Cast", ["g"], ["c"], to=1),
        node("Mul", ["c", "m"], ["k"]),
        node("Add", ["x", "k"], ["a"]),
        node("Softmax", ["a"], ["y"]),
    ]
    model, x = build(nodes, weights, x=("n", 32)), random.standard_normal((16, 32), np.float32)
    for dtype in ("float16", "bfloat16"):
        result = ConvertFloat16(form="compute", dtype=dtype)(model, bench(model, x))
        assert any("mask of -3.4e+38 became" in each.action for each in result.report.changes)
        assert np.abs(run(model, x)[0] - run(result.model, x)[0]).max() < 2e-3
        assert dtype != "float16" or types(result.model)["Softmax"] == "FLOAT16"
        assert "values beyond" not in reasons(result.report)


def test_stored_masks_are_raised_where_they_are_stored_in_16_bits(build, run, random):
    mask = np.triu(np.full((32, 32), -3.4e38, np.float32), 1)
    nodes = [node("Add", ["x", "m"], ["a"]), node("Softmax", ["a"], ["y"])]
    model = build(nodes, {"m": mask}, x=(32, 32))
    result, x = ConvertFloat16()(model), random.standard_normal((32, 32), np.float32)
    assert [each.site for each in result.report.changes] == ["graph", "m", "m"]
    assert np.array_equal(run(model, x)[0], run(result.model, x)[0])


def test_large_numbers_that_are_no_masks_stay_in_float32(build, run):
    model = build([node("Mul", ["x", "m"], ["y"])], {"m": np.array(-3.4e38, np.float32)}, x=("n",))
    result = ConvertFloat16(form="compute")(model)
    assert "its constant -3.4e+38 is lost in float16" in reasons(result.report)
    assert run(result.model, np.full(2, 0.5, np.float32))[0] == pytest.approx(-1.7e38, rel=1e-6)  # float32 throughout


def test_normalisations_by_a_small_epsilon_compute_in_float32(build, run):
    weights = {"two": np.array(2, np.float32), "e": np.array(1e-12, np.float32), "w": np.eye(64, dtype=np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("ReduceMean", ["m"], ["u"], axes=[-1]),
        node("Sub", ["m", "u"], ["d"]),
        node("Pow", ["d", "two"], ["s"]),
        node("ReduceMean", ["s"], ["v"], axes=[-1]),
        node("Add", ["v", "e"], ["ve"]),
        node("Sqrt", ["ve"], ["r"]),
        node("Div", ["d", "r"], ["n"]),
        node("MatMul", ["n", "w"], ["y"]),
    ]
    model = build(nodes, weights, x=(2, 64))
    result = ConvertFloat16(form="compute")(model)
    found = types(result.model)
    assert found["MatMul"] == "FLOAT16"
    assert {found[op] for op in ("Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div")} == {"FLOAT"}
    assert np.array_equal(run(result.model, np.ones((2, 64), np.float32))[0], np.zeros((2, 64)))  # else 0/0


def test_a_small_number_that_is_only_added_does_not_matter(build):
    model = build([node("Add", ["x", "e"], ["y"])], {"e": np.array(1e-8, np.float32)}, x=("n",))
    assert not ConvertFloat16(form="compute")(model).report.skips


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Exp", ["x"], ["y"])], "makes a small relative error"),
        ([node("CumSum", ["x", "i"], ["y"])], "tells whole numbers apart only up to 2,048"),
        ([node("ReduceSum", ["x"], ["y"])], "sums along an axis of any length"),
        ([node("EyeLike", ["x"], ["y"])], "ONNX has no EyeLike in float16"),
        ([node("LayerNormalization", ["x", "w"], ["y"], epsilon=1e-12)], "its epsilon 1e-12 is zero in float16"),
    ],
    ids=lambda each: each[0].op_type if isinstance(each, list) else "",
)
def test_says_why_nodes_stay_float32(build, run, nodes, reason):
    weights = {"w": np.ones(16, np.float32), "i": np.array(1)}
    used = {name: array for name, array in weights.items() if name in nodes[0].input}
    model, x = build(nodes, used, x=("n", 16)), np.ones((16, 16), np.float32)
    result = ConvertFloat16(form="compute")(model)
    assert reason in reasons(result.report)
    assert np.array_equal(run(model, x)[0], run(result.model, x)[0])


def test_what_becomes_a_whole_number_is_computed_in_float32(build, run):
    weights = {"s": np.array(1.5, np.float32)}
    nodes = [
        node("Cast", ["x"], ["f"], to=1),
        node("Mul", ["f", "s"], ["m"]),
        node("Floor", ["m"], ["r"]),
        node("Cast", ["r"], ["y"], to=7),
    ]
    model = build(nodes, weights, x=("n",), dtype=onnx.TensorProto.INT64)
    result = ConvertFloat16(form="compute")(model)
    assert "becomes a whole number" in reasons(result.report)
    assert run(result.model, np.array([5001]))[0].tolist() == [7501]


def test_quantized_layers_keep_their_scales(build, run, random):
    weights = {
        "w": random.integers(-127, 127, (16, 16), np.int8),
        "s": np.array(0.01, np.float32),
        "z": np.array(0, np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        node("MatMul", ["d", "v"], ["y"]),
    ]
    model, x = build(nodes, weights, x=(4, 16)), random.standard_normal((4, 16), np.float32)
    result = ConvertFloat16(form="compute")(model)
    assert "belongs to a quantized layer" in reasons(result.report)
    assert np.array_equal(run(model, x)[0], run(result.model, x)[0])
