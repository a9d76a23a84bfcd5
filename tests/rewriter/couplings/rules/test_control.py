"""Subgraphs."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxpress.rewriter.model import Model


def branch(name: str, *nodes: onnx.NodeProto, shape=None) -> onnx.GraphProto:
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)]
    )


def model_of(nodes, inputs, outputs, **weights: np.ndarray) -> Model:
    kinds = {bool: TensorProto.BOOL, float: TensorProto.FLOAT, int: TensorProto.INT64}
    declare = [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in inputs]
    ends = [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in outputs]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", declare, ends, constants)
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def test_branches_that_join_lose_the_same_units(thin, draw):
    then = branch("then", helper.make_node("Conv", ["h", "a"], ["p"]), shape=["N", 6, 4])
    other = branch(
        "else", helper.make_node("Conv", ["x", "b"], ["q0"]), helper.make_node("Relu", ["q0"], ["q"]), shape=["N", 6, 4]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("If", ["on"], ["j"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["j", "v"], ["y"]),
    ]
    for on in (True, False):
        model = model_of(
            nodes,
            [("x", float, ["N", 3, 4]), ("on", bool, [])],
            [("y", float, ["N", 5, 4])],
            w=draw(4, 3, 1),
            a=draw(6, 4, 1),
            b=draw(6, 3, 1),
            v=draw(5, 6, 1),
        )
        found = thin(model, x=draw(2, 3, 4), on=np.array(on))
        free = {
            g.size: {m.tensor.name for m in g.members if m.role in ("in", "out")}
            for g in found.values()
            if not g.frozen
        }
        assert free == {4: {"w", "a"}, 6: {"a", "b", "v"}}


def test_a_rank_that_would_fail_later_is_ruled_out(thin, draw):
    """An exporter's squeeze: one branch drops the last axis if it is 1; only then can Gemm read the result."""
    then = branch("then", helper.make_node("Squeeze", ["h", "last"], ["p"]))
    other = branch("else", helper.make_node("Identity", ["h"], ["q"]))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("Gather", ["s", "last"], ["t"]),
        helper.make_node("Equal", ["t", "one"], ["on"]),
        helper.make_node("If", ["on"], ["j"], then_branch=then, else_branch=other),
        helper.make_node("Gemm", ["j", "v"], ["y"]),
    ]
    model = model_of(
        nodes,
        [("x", float, ["N", 3, "T"])],
        [("y", float, ["N", 5])],
        w=draw(6, 3, 2),
        v=draw(6, 5),
        last=np.array([-1]),
        one=np.array([1]),
    )
    found = thin(model, x=draw(2, 3, 2))
    assert [g.size for g in found.values() if g.frozen is None] == [6]


def test_branches_of_different_rank_freeze(groups, draw):
    then = branch("then", helper.make_node("Squeeze", ["h", "last"], ["p"]))
    other = branch("else", helper.make_node("Identity", ["h"], ["q"]))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("If", ["on"], ["j"], "choose", then_branch=then, else_branch=other),
        helper.make_node("ReduceSum", ["j"], ["y"], keepdims=0),
    ]
    model = model_of(
        nodes, [("x", float, ["N", 3, 2]), ("on", bool, [])], [("y", float, [])], w=draw(6, 3, 2), last=np.array([-1])
    )
    frozen = next(
        g.frozen for g in groups(model).values() if any(m.tensor.name == "w" and m.role == "out" for m in g.members)
    )
    assert frozen == "the branches of If 'choose' give different ranks"


def test_a_loop_freezes_what_it_carries_but_not_what_stays_inside(thin, draw):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["more"]),
            helper.make_node("MatMul", ["carried", "a"], ["inner"]),
            helper.make_node("Relu", ["inner"], ["active"]),
            helper.make_node("MatMul", ["active", "b"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Loop", ["count", "", "h"], ["z"], "rounds", body=body),
        helper.make_node("MatMul", ["z", "v"], ["y"]),
    ]
    model = model_of(
        nodes,
        [("x", float, ["N", 3])],
        [("y", float, ["N", 5])],
        w=draw(3, 4),
        v=draw(4, 5),
        a=draw(4, 6),
        b=draw(6, 4),
        count=np.array(3),
    )
    found = thin(model, x=draw(2, 3))
    assert [g.size for g in found.values() if g.frozen is None] == [6]
    assert any("Loop 'rounds': what it carries" in (g.frozen or "") for g in found.values())


def test_a_size_that_a_branch_gives_freezes(groups, draw):
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [3]) for name in ("p", "q")]
    then = helper.make_graph([helper.make_node("Shape", ["h"], ["p"])], "then", [], ends[:1])
    other = helper.make_graph([helper.make_node("Shape", ["x"], ["q"])], "else", [], ends[1:])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("If", ["on"], ["sizes"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["h", "v"], ["y"]),
    ]
    model = model_of(
        nodes, [("x", float, [1, 3, 4]), ("on", bool, [])], [("y", float, [1, 5, 4]), ("sizes", int, [3])],
        w=draw(6, 3, 1), v=draw(5, 6, 1),
    )  # fmt: skip
    assert any("'p' computes with the size of axis 1 of 'h'" in (g.frozen or "") for g in groups(model).values())
