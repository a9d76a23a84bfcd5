import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.constants import constant_nodes_to_initializers
from onnxpress.rewriter.rules.folding import LAZY, fold_constants, fold_shapes
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.weights import Produced, values_of

RNG = np.random.default_rng(0)


def fold(model):
    for rule in (constant_nodes_to_initializers, fold_constants, fold_shapes, fold_constants):
        outcome = rule(model, infer_shapes(model))
        sweep(model)
    return outcome


def test_folds_a_weight_behind_a_cast_and_a_transpose(parse, run) -> None:
    text = "g (float[2,4] x) => (float y) { a = Cast<to=1>(w) b = Transpose<perm=[1,0]>(a) y = MatMul(x, b) }"
    weight = RNG.standard_normal((6, 4)).astype(np.float16)
    model = parse(text, w=weight)
    fold(model)
    (matmul,) = model.graph.nodes
    np.testing.assert_array_equal(model.array(matmul.inputs[1]), weight.astype(np.float32).T)


def test_a_large_weight_behind_data_movement_is_only_promised(parse, run) -> None:
    rows = LAZY // 256
    text = f"g (float[1,{rows}] x) => (float y) {{ b = Transpose<perm=[1,0]>(w) y = MatMul(x, b) }}"
    model = parse(text, w=RNG.standard_normal((64, rows)).astype(np.float32))
    x = np.ones((1, rows), np.float32)
    before = run(model, x=x)[0]
    fold(model)
    assert isinstance(values_of(model.graph.nodes[0].inputs[1]), Produced)
    np.testing.assert_allclose(run(model, x=x)[0], before, rtol=1e-5)


def test_does_not_let_the_file_grow(parse) -> None:
    text = "g (float[1000] x) => (float y) { a = Expand(c, s) b = Mul(a, k) y = Add(x, b) }"
    model = parse(text, c=np.float32([1]), s=np.array([1000]), k=np.float32([2]))
    outcome = fold_constants(model, infer_shapes(model))
    assert "4,000 bytes would enter the file" in outcome.left[0][1]
    assert len(model.graph.nodes) == 3


@pytest.mark.parametrize(
    "node",
    ["DequantizeLinear(q, s)", "RandomNormalLike(s)", "Bernoulli(s)"],
)
def test_leaves_quantized_and_random(parse, node: str) -> None:
    model = parse(
        f"g (float[8] x) => (float y) {{ a = {node} y = Add(x, a) }}", q=np.ones(8, np.int8), s=np.float32(0.5)
    )
    fold(model)
    assert len(model.graph.nodes) == 2


def test_what_onnx_runtime_cannot_compute_does_not_stop_the_rest(parse) -> None:
    text = (
        "g (float[4] x) => (float y, float z) { a = Exp(w) y = Add(x, a) b = Exp(i) c = Cast<to=1>(b) z = Add(x, c) }"
    )
    model = parse(text, w=np.ones(4, np.float32), i=np.ones(4, np.int32))
    fold(model)
    assert sum(n.op == "Exp" for n in model.graph.nodes) == 1


def test_folds_sizes_that_never_change(parse, run) -> None:
    text = """g (float[n,4,6] x) => (float y) {
        s = Shape(x) i = Constant<value_ints=[2]>() c = Gather(s, i) m = Constant<value_ints=[-1]>()
        t = Concat<axis=0>(m, c) y = Reshape(x, t) }"""
    model = parse(text)
    fold(model)
    assert [n.op for n in model.graph.nodes] == ["Reshape"]
    assert run(model, x=np.zeros((3, 4, 6), np.float32))[0].shape == (12, 6)


def test_a_size_that_may_change_stays(parse) -> None:
    model = parse("g (float[n,4] x) => (int64[1] y) { s = Shape(x) y = Gather(s, i) }", i=np.array([0]))
    fold(model)
    assert len(model.graph.nodes) == 2


def test_folds_inside_branches(parse, run) -> None:
    model = parse(
        "g (float[2] x, bool c) => (float y) { y = If (c) "
        "<then_branch = t () => (float b) { k = Constant<value_float=2.0>() l = Neg(k) b = Mul(x, l) }, "
        "else_branch = e () => (float d) { d = Abs(x) }> }"
    )
    fold(model)
    assert [n.op for n in model.graph.nodes[0].attrs["then_branch"].nodes] == ["Mul"]
    np.testing.assert_array_equal(run(model, x=np.ones(2, np.float32), c=np.array(True))[0], [-2, -2])


@pytest.mark.parametrize(("to", "name"), [(16, "bfloat16"), (17, "float8_e4m3fn"), (20, "float8_e5m2fnuz")])
def test_folds_into_types_that_numpy_lacks(parse, to: int, name: str) -> None:
    values = np.array([1, 2, 3, 7], np.float32)
    model = parse(f"g (int64[1] i) => (y) {{ c = Cast<to = {to}>(w) y = Gather(c, i) }}", opset=21, ir=10, w=values)
    fold_constants(model, infer_shapes(model))
    (table,) = [t for node in model.graph.nodes if node.op == "Gather" for t in node.inputs[:1]]
    assert table.dtype.name == name
    np.testing.assert_array_equal(model.array(table).astype(np.float32), values)


def test_promises_moves_of_large_float64_weights(parse) -> None:
    model = parse(
        "g (double[1, 512] x) => (double[1, 512] y) { t = Transpose<perm = [1, 0]>(w) y = MatMul(x, t) }",
        w=np.eye(512),
    )
    fold_constants(model, infer_shapes(model))
    (matmul,) = [node for node in model.graph.nodes if node.op == "MatMul"]
    assert isinstance(values_of(matmul.inputs[1]), Produced)
