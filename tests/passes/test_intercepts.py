"""Biases of linear layers: found, read in units of the product, and added to."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.inputs import view_of
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.sites import find_sites

DRAW = np.random.default_rng(0)


def array(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


def node(op, inputs, output="y", **attrs):
    return helper.make_node(op, inputs, [output], **attrs)


MATMUL = node("MatMul", ["x", "w"], "p")
LEFT = node("MatMul", ["w", "x"], "p")

FOUND = {
    "conv": ([node("Conv", ["x", "w", "b"])], array(4, 3, 1, 1), array(4), (2, 3, 5, 5)),
    "conv without": ([node("Conv", ["x", "w"])], array(4, 3, 1, 1), None, (2, 3, 5, 5)),
    "gemm": ([node("Gemm", ["x", "w", "b"], alpha=2.0, beta=0.5)], array(3, 4), array(1, 4), (2, 3)),
    "gemm without": ([node("Gemm", ["x", "w"], alpha=2.0)], array(3, 4), None, (2, 3)),
    "gemm, left": ([node("Gemm", ["w", "x", "b"])], array(4, 3), array(4, 1), (3, 2)),
    "gemm, left without": ([node("Gemm", ["w", "x"])], array(4, 3), None, (3, 2)),
    "add behind": ([MATMUL, node("Add", ["p", "b"])], array(3, 4), array(4), (2, 5, 3)),
    "add before": ([MATMUL, node("Add", ["b", "p"])], array(3, 4), array(1, 1, 4), (2, 5, 3)),
    "add, left": ([LEFT, node("Add", ["p", "b"])], array(4, 3), array(4, 1), (2, 3, 5)),
}


@pytest.mark.parametrize("case", FOUND)
def test_adds_to_every_output_in_units_of_the_product(build, run, case):
    nodes, weight, bias, shape = FOUND[case]
    model = build(nodes, {"w": weight} | ({} if bias is None else {"b": bias}), x=[None] * len(shape))
    (site,) = find_sites(model)
    x, delta = array(*shape), array(4)
    before = run(model, x)[0]
    intercept = intercept_of(model, site)
    assert intercept is not None
    view = view_of(site.uses[0])
    product = (view.rows(x) @ Layout.of(site).to_rows(weight).T)[0]
    intercept.add(model, delta)
    change = run(model, x)[0] - before
    # what the factor of a Gemm makes of it
    alpha = 2.0 if case in ("gemm", "gemm without") else 1.0
    axis = {"conv": 1, "conv without": 1}.get(case, -2 if "left" in case else -1)
    wide = np.moveaxis(change, axis, -1).reshape(-1, 4)
    np.testing.assert_allclose(wide, np.broadcast_to(alpha * delta, wide.shape), rtol=1e-4, atol=1e-5)
    assert wide.shape == product.shape
    if bias is not None:
        factor = 4.0 if case == "gemm" else 1.0
        np.testing.assert_allclose(intercept.read(model) - delta, bias.reshape(-1) / factor, rtol=1e-4, atol=1e-5)


def test_others_that_read_the_constant_keep_theirs(build, run):
    nodes = [node("Conv", ["x", "w", "b"], "h"), node("Conv", ["h", "v", "b"], "y")]
    weights = {"w": array(3, 3, 1, 1), "v": array(3, 3, 1, 1), "b": array(3)}
    model = build(nodes, weights, x=[1, 3, 4, 4])
    first, second = find_sites(model)
    intercept_of(model, first).add(model, np.ones(3))
    np.testing.assert_array_equal(intercept_of(model, second).read(model), weights["b"])
    np.testing.assert_allclose(intercept_of(model, first).read(model), weights["b"] + 1, rtol=1e-6, atol=0)
    assert run(model, array(1, 3, 4, 4))[0].shape == (1, 3, 4, 4)


def test_a_bias_keeps_its_type(build):
    weights = {"w": array(3, 4).astype(np.float16), "b": array(4).astype(np.float16)}
    model = build([MATMUL, node("Add", ["p", "b"])], weights, x=[2, 3], dtype=10)
    (site,) = find_sites(model)
    intercept_of(model, site).add(model, np.ones(4))
    assert {each.dtype.name for each in map(model.array, model.constants())} == {"float16"}


def test_refuses_a_sum_that_its_type_cannot_hold(build):
    weights = {"w": array(3, 4).astype(np.float16), "b": np.full(4, 60000, np.float16)}
    model = build([MATMUL, node("Add", ["p", "b"])], weights, x=[2, 3], dtype=10)
    intercept = intercept_of(model, find_sites(model)[0])
    with pytest.raises(RefusalError, match="the new bias does not fit into float16"):
        intercept.add(model, np.full(4, 1e4))
    np.testing.assert_array_equal(intercept.read(model), np.full(4, np.float16(60000)))


NONE = {
    "a matmul without add": ([node("MatMul", ["x", "w"])], {}),
    "another reader of the product": (
        [MATMUL, node("Add", ["p", "b"], "q"), node("Mul", ["p", "q"])],
        {"b": array(4)},
    ),
    "a constant that is a number": ([MATMUL, node("Add", ["p", "b"])], {"b": array(1)}),
    "a constant of rows": ([MATMUL, node("Add", ["p", "b"])], {"b": array(2, 4)}),
    "a bias along the other axis": ([MATMUL, node("Add", ["p", "b"])], {"b": array(4, 1)}),
    "something else than an add": ([MATMUL, node("Mul", ["p", "b"])], {"b": array(4)}),
    "a bias that is computed": ([node("Neg", ["b"], "c"), MATMUL, node("Add", ["p", "c"])], {"b": array(4)}),
    "a gemm that ignores its bias": ([node("Gemm", ["x", "w", "b"], beta=0.0)], {"b": array(4)}),
    "a gemm that ignores a bias": ([node("Gemm", ["x", "w"], beta=0.0)], {}),
    "a gemm with rows of bias": ([node("Gemm", ["x", "w", "b"])], {"b": array(2, 4)}),
    "a recurrent layer": ([helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=1)], {"r": array(1, 4, 1)}),
}


@pytest.mark.parametrize("case", NONE)
def test_finds_none_where_there_is_none(build, case):
    nodes, weights = NONE[case]
    weight = array(1, 4, 3) if nodes[0].op_type == "LSTM" else array(4, 4)
    model = build(nodes, {"w": weight} | weights, x=None)
    assert intercept_of(model, find_sites(model)[0]) is None


def test_finds_none_for_a_weight_of_two_layers_or_a_bias_that_callers_replace(build):
    nodes = [node("Conv", ["x", "w", "b"], "h"), node("Conv", ["h", "w", "b"], "y")]
    model = build(nodes, {"w": array(3, 3, 1, 1), "b": array(3)}, x=None)
    assert intercept_of(model, find_sites(model)[0]) is None
    model = build([*nodes[:1], node("Relu", ["h"])], {"w": array(3, 3, 1, 1), "b": array(3)}, x=None)
    assert intercept_of(model, find_sites(model)[0]) is not None
    bias = next(each for each in model.constants() if each.name == "b")
    model.graph.inputs.append(bias)
    assert intercept_of(model, find_sites(model)[0]) is None


def test_an_old_gemm_cannot_go_without(build):
    model = build([node("Gemm", ["x", "w"])], {"w": array(3, 4)}, x=None, opset=9)
    assert intercept_of(model, find_sites(model)[0]) is None
