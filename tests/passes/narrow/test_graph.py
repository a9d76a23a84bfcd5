import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.passes.narrow.float16 import ConvertFloat16
from onnxpress.rewriter.model import Model

IDS = {"dtype": onnx.TensorProto.INT64, "gives": onnx.TensorProto.FLOAT}


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / max(np.square(reference - test).sum(), 1e-30))


def reasons(report):
    return " | ".join(f"{skip.site}: {skip.reason}" for skip in report.skips)


def test_branches_compute_in_16_bits_inside(build, run, random):
    inner = {"w": numpy_helper.from_array(random.standard_normal((16, 16), np.float32), "inner_w")}
    end = [helper.make_tensor_value_info(name, 1, None) for name in ("then", "else")]
    then = helper.make_graph([node("MatMul", ["h", "inner_w"], ["then"])], "t", [], [end[0]], [inner["w"]])
    other = helper.make_graph([node("Exp", ["h"], ["else"])], "e", [], [end[1]])
    weights = {"w": random.standard_normal((16, 16), np.float32), "zero": np.array(0, np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    model = build(nodes, weights, x=(4, 16))
    result = ConvertFloat16(form="compute")(model)
    assert "the nodes inside are converted" in reasons(result.report)
    assert result.model.weight_bytes() < 0.52 * model.weight_bytes()
    for sign in (1, -1):
        x = sign * np.abs(random.standard_normal((4, 16), np.float32))
        assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 50
    stored = ConvertFloat16(form="store")(model).model
    assert stored.weight_bytes() < 0.52 * model.weight_bytes()
    assert sqnr(run(model, x)[0], run(stored, x)[0]) > 50


def test_loops_carry_float32(build, run, random):
    state = [helper.make_tensor_value_info(name, 1, [4, 16]) for name in ("s", "t")]
    counts = [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, [])]
    goes = helper.make_tensor_value_info("on", 9, [])
    inside = [node("MatMul", ["s", "w"], ["p"]), node("Tanh", ["p"], ["t"]), node("Identity", ["go"], ["on"])]
    body = helper.make_graph(inside, "b", [*counts, state[0]], [goes, state[1]])
    weights = {"w": random.standard_normal((16, 16), np.float32), "n": np.array(3), "yes": np.array(True)}
    nodes = [node("Relu", ["x"], ["r"]), node("Loop", ["n", "yes", "r"], ["y"], body=body)]
    model, x = build(nodes, weights, x=(4, 16)), random.standard_normal((4, 16), np.float32)
    result = ConvertFloat16(form="compute")(model).model
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 40


def test_sequences_keep_their_type(build, run, random):
    weights = {"w": random.standard_normal((16, 16), np.float32), "zero": np.array(0)}
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("SequenceConstruct", ["m", "x"], ["s"]),
        node("SequenceAt", ["s", "zero"], ["a"]),
        node("MatMul", ["a", "w"], ["y"]),
    ]
    model, x = build(nodes, weights, x=(4, 16)), random.standard_normal((4, 16), np.float32)
    result = ConvertFloat16(form="compute")(model)
    assert "sequences and optional values keep the type" in reasons(result.report)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 50


def test_casts_constants_and_fills_change_their_type(build, run, random):
    weights = {"shape": np.array([4, 16]), "w": random.standard_normal((16, 16), np.float32)}
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.full(16, 2, np.float32))),
        node("ConstantOfShape", ["shape"], ["f"], value=fill),
        node("Cast", ["x"], ["c"], to=1),
        node("Add", ["c", "f"], ["a"]),
        node("MatMul", ["a", "w"], ["m"]),
        node("Mul", ["m", "k"], ["y"]),
    ]
    model = build(nodes, weights, x=(4, 16), **IDS)
    result, x = ConvertFloat16(form="compute")(model).model, random.integers(-3, 3, (4, 16))
    assert [each.op for each in result.graph.nodes] == ["ConstantOfShape", "Cast", "Add", "MatMul", "Mul", "Cast"]
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 50


def test_casts_of_its_own_that_do_nothing_any_more_go(build, run, random):
    weights = {"w": random.standard_normal((16, 16), np.float32)}
    nodes = [node("Cast", ["x"], ["c"], to=1), node("MatMul", ["c", "w"], ["y"])]
    model = build(nodes, weights, x=(4, 16), dtype=onnx.TensorProto.FLOAT16, gives=1)
    result, x = ConvertFloat16(form="compute")(model).model, random.standard_normal((4, 16)).astype(np.float16)
    assert [each.op for each in result.graph.nodes] == ["MatMul", "Cast"]
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 50


def test_a_tensor_is_cast_once_for_all_that_read_it(build, random):
    weights = {"w": random.standard_normal((16, 16), np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Exp", ["m"], ["a"]),
        node("Tan", ["m"], ["b"]),
        node("Mul", ["a", "b"], ["c"]),
        node("Add", ["m", "c"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    model = ConvertFloat16(form="compute")(build(nodes, weights, x=(4, 16))).model
    assert [each.op for each in model.graph.nodes].count("Cast") == 4  # x in, m for two, c, y out
    assert model.weight_bytes() == 16 * 16 * 2


def test_unknown_operators_and_overridable_weights_stay_float32(build, run, random):
    weights = {"w": random.standard_normal((16, 16), np.float32)}
    gelu = helper.make_node("Gelu", ["m"], ["g"], domain="com.microsoft", name="g")
    other = helper.make_node("Inverse", ["g"], ["y"], domain="com.microsoft", name="i")
    model = build([node("MatMul", ["x", "w"], ["m"]), gelu, other], weights, x=(16, 16))
    proto = model.to_proto()
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [16, 16]))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model, x = Model.from_proto(proto), np.eye(16, dtype=np.float32)
    result = ConvertFloat16(form="compute")(model)
    assert "i: operators of com.microsoft are not known" in reasons(result.report)
    assert [each.name for each in result.model.graph.inputs] == ["x", "w"]
    assert run(result.model, x)[0] == pytest.approx(run(model, x)[0], rel=0.2, abs=0.2)  # an inverse amplifies
    assert "a caller reads it" in reasons(ConvertFloat16(form="store")(model).report)


def test_a_weight_that_is_read_in_both_types_is_stored_once(build, run, random):
    weights = {"w": random.standard_normal((16, 16), np.float32)}
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Exp", ["w"], ["e"]), node("MatMul", ["m", "e"], ["y"])]
    model, x = build(nodes, weights, x=(4, 16)), random.standard_normal((4, 16), np.float32)
    result = ConvertFloat16(form="compute")(model).model
    assert result.weight_bytes() == 16 * 16 * 2
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 50


def test_local_functions_stay_float32_where_nobody_inlined_them(build, run, random):
    model = build([node("Relu", ["x"], ["m"]), node("Twice", ["m"], ["y"], domain="own")], {}, x=(4, 16))
    proto, opsets = model.to_proto(), [helper.make_opsetid("", 17)]
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets))
    model, x = Model.from_proto(proto), random.standard_normal((4, 16), np.float32)
    result = ConvertFloat16(form="compute")(model)
    assert "operators of own are not known" in reasons(result.report)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 50


def test_borders_that_compute_in_float32_are_cast(build, run, random):
    model = build([node("Exp", ["x"], ["y"])], {}, x=("n",))
    half = ConvertFloat16(keep_io=False)(model).model
    given = run(half, np.ones(3, np.float16))[0]
    assert given.dtype == np.float16
    assert given == pytest.approx(np.e, rel=1e-3)  # of float16
