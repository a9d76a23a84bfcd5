import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.constants import constant_nodes_to_initializers, fix_defaults, share_identical
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs


def test_every_form_of_constant_becomes_an_initializer(parse, run) -> None:
    text = """g (float[2] x) => (float y) {
        a = Constant<value = float[2] {1, 2}>() b = Constant<value_float = 3.0>()
        c = Constant<value_floats = [4.0, 5.0]>()
        i = Constant<value_ints = [0, 1]>() g = Gather(c, i) d = Add(a, b) e = Add(d, g) y = Add(x, e) }"""
    model = parse(text)
    before = run(model, x=np.ones(2, np.float32))[0]
    assert constant_nodes_to_initializers(model, Shapes()).counts.total() == 4
    sweep(model)
    assert all(n.op != "Constant" for n in model.graph.nodes)
    np.testing.assert_array_equal(run(model, x=np.ones(2, np.float32))[0], before)


def test_a_constant_that_is_an_output_stays(parse) -> None:
    model = parse("g (float[2] x) => (float y) { y = Constant<value_float = 3.0>() }")
    assert not constant_nodes_to_initializers(model, Shapes())


def test_weights_listed_as_inputs_become_constant(parse) -> None:
    proto = parse("g (float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32), ir=8).to_proto()
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    model = Model.from_proto(proto)
    assert "fixed at their defaults: w" in fix_defaults(model).done[0][1]
    again = model.to_proto()
    assert [i.name for i in again.graph.input] == ["x"]
    onnx.checker.check_model(again)


def test_equal_weights_are_stored_once(parse, run) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    near = weight.copy()
    near[-1, -1] += 1e-3
    text = "g (float[2,8] x) => (float y) { a = MatMul(x, w) b = MatMul(a, v) y = MatMul(b, u) }"
    model = parse(text, w=weight, v=weight, u=near)
    before = run(model, x=np.ones((2, 8), np.float32))[0]
    share_identical(model, Shapes())
    sweep(model)
    assert len(model.graph.constants) == 2
    np.testing.assert_array_equal(run(model, x=np.ones((2, 8), np.float32))[0], before)


def test_zero_and_minus_zero_are_not_equal(parse) -> None:
    text = "g (float[32] x) => (float y) { a = Div(x, w) y = Div(a, v) }"
    model = parse(text, w=np.zeros(32, np.float32), v=-np.zeros(32, np.float32))
    assert not share_identical(model, Shapes())


def test_equal_weights_of_two_branches_move_up(parse, run) -> None:
    body = "{ w = Constant<value = float[16] {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}>() "
    model = parse(
        f"g (float[16] x, bool c) => (float y) {{ y = If (c) <then_branch = t () => (float b) {body} b = Add(x, w) }}, "
        f"else_branch = e () => (float d) {body} d = Sub(x, w) }}> }}"
    )
    inputs = {"x": np.ones(16, np.float32), "c": np.array(False)}
    before = run(model, **inputs)[0]
    constant_nodes_to_initializers(model, Shapes())
    share_identical(model, Shapes())
    sweep(model)
    assert [len(g.constants) for g in graphs(model.graph)] == [1, 0, 0]
    np.testing.assert_array_equal(run(model, **inputs)[0], before)
