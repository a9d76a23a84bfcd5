"""Branches that always run."""

import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.invariants import Interface, check
from onnxpress.rewriter.rules.branches import choose_branches
from onnxpress.rewriter.rules.constants import constant_nodes_to_initializers
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.walk import nodes

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)


def chosen(model, run, *, count: int):
    """Choose, compare with ONNX Runtime, and return the operators that are left."""
    interface, before = Interface.of(model), run(model, x=X)
    assert choose_branches(model, infer_shapes(model)).counts.total() == count
    sweep(model)
    check(model, interface)
    for old, new in zip(before, run(model, x=X), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6)
    return [node.op for _, node in nodes(model.graph)]


def either(name: str, then: str, other: str, condition: str = "c", out: str = "float[2,4]") -> str:
    return (
        f"{name} = If ({condition}) <then_branch = t () => ({out} a) {{ {then} }}, "
        f"else_branch = e () => ({out} a) {{ {other} }}>"
    )


@pytest.mark.parametrize(("condition", "op"), [(True, "Relu"), (False, "Neg")])
@pytest.mark.parametrize("tail", ["y = Tanh (j)", "y = Identity (j)"])
def test_the_branch_that_runs_is_left_with_what_it_reads_from_outside(parse, run, condition, op, tail):
    text = f"h = MatMul (x, w) {either('j', 'a = Relu (h)', 'a = Neg (h)')} {tail}"
    model = parse(f"g (float[2,4] x) => (float[2,4] y) {{ {text} }}", w=W, c=np.array(condition))
    assert chosen(model, run, count=1)[:2] == ["MatMul", op]


def test_equal_names_in_branches_become_different(parse, run):
    first = either("j", "k = Relu (x) a = Mul (k, k)", "a = Neg (x)")
    second = either("m", "k = Tanh (j) a = Mul (k, k)", "a = Neg (j)")
    third = either("n", "a = Neg (m)", "k = Exp (m) a = Add (k, m)", condition="d")
    model = parse(
        f"g (float[2,4] x) => (float[2,4] y) {{ {first} {second} {third} y = Add (n, x) }}",
        c=np.array(True),
        d=np.array([False]),
    )
    assert chosen(model, run, count=3) == ["Relu", "Mul", "Tanh", "Mul", "Exp", "Add", "Add"]


def test_outputs_of_the_model_keep_their_names(parse, run):
    ends = "float[2,4] a, float[2,4] b, float[2,4] d"
    model = parse(
        "g (float[2,4] x) => (float[2,4] y, float[2,4] z, float[2,4] v) { y, z, u = If (c) "
        f"<then_branch = t () => ({ends}) {{ a = Relu (x) b = Tanh (a) d = Neg (b) }}, "
        f"else_branch = e () => ({ends}) {{ a = Neg (x) b = Neg (x) d = Neg (x) }}> v = Add (u, y) }}",
        c=np.array(True),
    )
    assert chosen(model, run, count=1) == ["Relu", "Tanh", "Neg", "Add"]
    assert model.outputs == ("y", "z", "v")


def test_one_tensor_may_be_several_outputs(parse, run):
    model = parse(
        "g (float[2,4] x) => (float[2,4] y, float[2,4] z) { y, z = If (c) "
        "<then_branch = t () => (float[2,4] a, float[2,4] b) { a = Relu (x) b = Relu (x) }, "
        "else_branch = e () => (float[2,4] a, float[2,4] b) { a = Neg (x) b = Neg (x) }> }",
        c=np.array(True),
    )
    branch = model.graph.nodes[0].attrs["then_branch"]
    before = run(model, x=X)
    branch.outputs[1] = branch.outputs[0]
    choose_branches(model, infer_shapes(model))
    sweep(model)
    check(model, Interface(("x",), ("y", "z")))
    np.testing.assert_array_equal(run(model, x=X), before)


def test_a_branch_within_a_branch_is_chosen_too(parse, run):
    inner = either("p", "k = Relu (h) q = Mul (k, h)", "q = Neg (h)").replace("float[2,4] a", "float[2,4] q")
    outer = either("j", f"{inner} a = Tanh (p)", "a = Exp (h)")
    text = f"h = MatMul (x, w) {outer} k = Abs (j) y = Add (k, h)"
    model = parse(f"g (float[2,4] x) => (float[2,4] y) {{ {text} }}", w=W, c=np.array(True))
    assert chosen(model, run, count=2) == ["MatMul", "Relu", "Mul", "Tanh", "Abs", "Add"]


def test_an_if_within_a_branch_that_may_run_is_looked_at(parse, run):
    inner = either("p", "q = Relu (x)", "q = Neg (x)").replace("float[2,4] a", "float[2,4] q")
    outer = either("y", f"{inner} a = Tanh (p)", "a = Exp (x)", condition="on")
    text = f"s = ReduceSum <keepdims = 0> (x) on = Greater (s, zero) {outer}"
    model = parse(f"g (float[2,4] x) => (float[2,4] y) {{ {text} }}", c=np.array(True), zero=np.float32(-99))
    assert chosen(model, run, count=1) == ["ReduceSum", "Greater", "If", "Relu", "Tanh", "Exp"]


def test_weights_of_a_branch_come_along(parse, run):
    weight = either("j", "u = Constant <value = float[4] {1, 2, 3, 4}> () a = Mul (x, u)", "a = Neg (x)")
    model = parse(
        f"g (float[2,4] x) => (float[2,4] y) {{ v = Neg (x) {weight} y = Add (j, v) }}",
        c=np.array(True),
    )
    constant_nodes_to_initializers(model, infer_shapes(model))
    sweep(model)
    assert [c.name for c in model.graph.nodes[1].attrs["then_branch"].constants] == ["u"]
    assert chosen(model, run, count=1) == ["Neg", "Mul", "Add"]
    assert [c.name for c in model.constants()] == ["u"]


@pytest.mark.parametrize("overridable", [False, True])
def test_a_condition_that_may_change_keeps_its_if(parse, overridable):
    given = "" if overridable else ", bool c"
    weights = {"c": np.array(True)} if overridable else {}
    model = parse(
        f"g (float[2,4] x{given}) => (float[2,4] y) {{ {either('y', 'a = Relu (x)', 'a = Neg (x)')} }}", **weights
    )
    if overridable:
        model.graph.inputs.append(model.constants()[0])
    assert not choose_branches(model, infer_shapes(model))
    assert [node.op for node in model.graph.nodes] == ["If"]
