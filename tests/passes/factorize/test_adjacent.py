"""Which layers one may stand for, and why others stay."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.factorize.merge import MergeProducts


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer(number: int, op: str, *weights: str, source: str, target: str, **attrs) -> onnx.NodeProto:
    return helper.make_node(op, [source, *weights], [target], name=f"layer{number}", **attrs)


def reasons(model) -> list[str]:
    report = MergeProducts()(model).report
    assert report.changes == []
    return [skip.reason for skip in report.skips]


def pair(build, a=(8, 30), b=(30, 6), *, ops=("MatMul", "MatMul"), first=None, second=None, between=(), x=None, **more):
    """Two layers with `between` between them, which reads t and writes s."""
    outputs = more.pop("outputs", ("y",))
    names = [[name for name in (w, bias) if name in more or name in "ab"] for w, bias in (("a", "c"), ("b", "d"))]
    nodes = [
        layer(0, ops[0], *names[0], source="x", target="t", **first or {}),
        *between,
        layer(1, ops[1], *names[1], source="s" if between else "t", target="y", **second or {}),
        *more.pop("behind", ()),
    ]
    weights = {"a": normal(*a), "b": normal(*b, seed=1), **more}
    return build(nodes, weights, x=x or (3, a[0]), outputs=outputs)


def convolutions(build, a=(8, 4, 1, 1), b=(4, 8, 1, 1), *, first=None, second=None, **more):
    size = a[1] * (first or {}).get("group", 1)
    return pair(build, a, b, ops=("Conv", "Conv"), first=first, second=second, x=(1, size, 9, 9), **more)


def test_refuses_what_saves_nothing_with_the_figures(build):
    assert reasons(pair(build, (8, 3), (3, 6))) == ["one layer takes no fewer multiply-adds: 8·6 ≥ 8·3 + 3·6"]


def test_counts_what_runs_before_strides_as_often_as_it_runs(build):
    model = convolutions(build, (4, 4, 1, 1), (6, 4, 2, 2), second={"strides": [2, 2]})
    (change,) = MergeProducts()(model).report.changes
    assert change.action.endswith("4·6·2·2 multiply-adds instead of 4·4·4 + 4·6·2·2")


def test_refuses_fewer_multiply_adds_by_more_weights(build):
    model = convolutions(build, (3, 5, 3, 3), (6, 3, 1, 1), second={"strides": [2, 2]})
    assert reasons(model) == ["one layer holds no fewer weights: 5·6·3·3 ≥ 153"]


def test_refuses_what_is_read_by_others_or_an_output(build):
    behind = [helper.make_node("Relu", ["t"], ["z"])]
    assert reasons(pair(build, behind=behind, outputs=("y", "z"))) == ["what 'layer0' gives is read by 2 nodes"]
    assert reasons(pair(build, outputs=("y", "t"))) == ["what 'layer0' gives is an output, too"]


def test_refuses_a_weight_of_others(build):
    model = pair(build, behind=[helper.make_node("Relu", ["a"], ["z"])], outputs=("y", "z"))
    assert reasons(model) == ["the weight of 'layer0' is read by others, too, and would have to stay"]


def test_refuses_stacks_of_matrices(build):
    model = pair(build, (2, 8, 30), (30, 6), x=(3, 8))
    assert reasons(model) == ["the weight of 'layer0' is a stack of matrices"]


def test_refuses_what_transposes(build):
    ops = ("Gemm", "Gemm")
    turned = pair(build, (8, 3), (5, 6), ops=ops, second={"transA": 1}, x=(5, 8))
    assert reasons(turned) == ["'layer1' transposes what lies between"]
    mixed = pair(build, ops=("Gemm", "MatMul"), first={"transA": 1}, x=(8, 3))
    assert reasons(mixed) == ["'layer0' transposes what it reads, which a MatMul cannot"]


@pytest.mark.parametrize("shape", [(1,), (3, 30)])
def test_refuses_an_add_that_is_no_bias(build, shape):
    add = [helper.make_node("Add", ["t", "e"], ["s"], name="add")]
    assert reasons(pair(build, between=add, e=normal(*shape))) == [
        "Add 'add' between them is no bias of one number for each output"
    ]


def test_refuses_a_constant_that_makes_what_it_is_added_to_grow(build):
    add = [helper.make_node("Add", ["t", "e"], ["s"], name="add")]
    model = pair(build, between=add, e=normal(1, 1, 30))
    assert reasons(model) == ["a constant of 3 axes is added between them, to what may have fewer"]


def test_refuses_a_bias_that_is_computed(build):
    before = helper.make_node("Relu", ["e"], ["computed"])
    nodes = [
        before,
        helper.make_node("Gemm", ["x", "a", "computed"], ["t"], name="layer0"),
        helper.make_node("Gemm", ["t", "b"], ["y"], name="layer1"),
    ]
    model = build(nodes, {"a": normal(8, 30), "b": normal(30, 6), "e": normal(30)}, x=(3, 8))
    assert reasons(model) == ["'layer0' has a bias that is computed, or not one for each output"]
    nodes[1:] = [
        helper.make_node("Gemm", ["x", "a", "c"], ["t"], name="layer0"),
        helper.make_node("Gemm", ["t", "b", "computed"], ["y"], name="layer1"),
    ]
    weights = {"a": normal(8, 30), "b": normal(30, 6), "c": normal(30), "e": normal(6)}
    assert reasons(build(nodes, weights, x=(3, 8))) == ["the bias of 'layer0' cannot be added to that of 'layer1'"]


def test_refuses_groups(build):
    assert reasons(convolutions(build, (8, 2, 1, 1), first={"group": 2})) == ["'layer0' has 2 groups"]


def test_refuses_two_wide_kernels(build):
    model = convolutions(build, (8, 4, 3, 3), (4, 8, 1, 3))
    assert reasons(model) == ["have kernels of 3x3 and 1x3: only a kernel of one position can be taken into another"]


def test_refuses_padding_between(build):
    model = convolutions(build, second={"pads": [1, 1, 1, 1]})
    assert reasons(model) == ["'layer1' pads what lies between"]
    model = convolutions(build, b=(4, 8, 3, 3), first={"pads": [0, 1, 0, 0]})
    assert reasons(model) == ["'layer0' pads or strides before a wider kernel"]


def test_refuses_a_bias_that_ends_at_the_padding(build):
    model = convolutions(build, a=(8, 2, 1, 1), b=(4, 8, 3, 3), second={"auto_pad": "SAME_UPPER"}, c=normal(8))
    assert reasons(model) == ["the bias of 'layer0' ends where 'layer1' pads with zeros"]
    zero = convolutions(build, a=(8, 2, 1, 1), b=(4, 8, 3, 3), second={"pads": [1, 1, 1, 1]}, c=np.zeros(8, np.float32))
    assert len(MergeProducts()(zero).report.changes) == 1


def test_refuses_strides_that_move_the_padding(build):
    model = convolutions(build, a=(8, 4, 3, 3), first={"auto_pad": "SAME_UPPER"}, second={"strides": [2, 1]})
    assert reasons(model) == ["the padding of 'layer0' follows from its strides, which would change"]


def test_refuses_what_runs_in_a_branch(build):
    inner = [layer(0, "MatMul", "a", source="x", target="t"), layer(1, "MatMul", "b", source="t", target="v")]
    branches = [
        helper.make_graph(
            nodes,
            "branch",
            [],
            [helper.make_tensor_value_info("v", 1, None)],
            [onnx.numpy_helper.from_array(normal(*size), name) for name, size in sizes.items()],
        )
        for nodes, sizes in (
            (inner, {"a": (6, 30), "b": (30, 6)}),
            ([helper.make_node("Relu", ["x"], ["v"])], {}),
        )
    ]
    which = helper.make_node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Less", ["m", "e"], ["which"]),
        which,
    ]
    model = build(nodes, {"e": np.array(9.0, np.float32)}, x=(3, 6))
    assert reasons(model) == ["they run inside a branch or a loop"]


def test_refuses_products_that_the_type_cannot_hold(build):
    kind = onnx.TensorProto.FLOAT16
    nodes = [layer(0, "MatMul", "a", source="x", target="t"), layer(1, "MatMul", "b", source="t", target="y")]
    weights = {name: np.full(size, 6e4, np.float16) for name, size in (("a", (8, 30)), ("b", (30, 6)))}
    assert reasons(build(nodes, weights, x=(3, 8), dtype=kind)) == ["the new weight does not fit into float16"]


def test_leaves_layers_that_multiply_along_other_axes(build):
    nodes = [helper.make_node("MatMul", ["x", "a"], ["t"]), helper.make_node("MatMul", ["b", "t"], ["y"])]
    model = build(nodes, {"a": normal(8, 30), "b": normal(6, 3)}, x=(3, 8))
    report = MergeProducts()(model).report
    assert (report.changes, report.skips) == ([], [])
