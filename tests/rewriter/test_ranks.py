"""Branches that cannot have run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.rewriter.edits import set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.ranks import infer_ranks
from onnxpress.rewriter.shapes import infer_shapes

AXES = helper.make_tensor("axes", TensorProto.INT64, [1], [-1])


def branch(name: str, op: str) -> onnx.GraphProto:
    inputs = ["h", "axes"] if op in ("Squeeze", "Unsqueeze") else ["h"]
    node = helper.make_node(op, inputs, [name])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def joined(then: str, other: str, *tail: onnx.NodeProto) -> Model:
    """h [N, 4, T] -> If -> j -> tail."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["on"], ["j"], then_branch=branch("p", then), else_branch=branch("q", other)),
        *tail,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "T"]),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [AXES, helper.make_tensor("v", TensorProto.FLOAT, [4, 2], [1.0] * 8)],
    )
    opset = [helper.make_opsetid("", 17)]
    return Model.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=8))


def found(model: Model):
    ranks = infer_ranks(model, infer_shapes(model))
    tensors = model.graph.tensors()
    return ranks.ranks.get(id(tensors["j"])), ranks.choices.get(id(tensors["on"]))


@pytest.mark.parametrize(("then", "other", "chosen"), [("Squeeze", "Identity", 1), ("Identity", "Squeeze", 0)])
def test_a_branch_whose_rank_a_later_node_cannot_read_is_ruled_out(then, other, chosen):
    model = joined(then, other, helper.make_node("Gemm", ["j", "v"], ["y"]))
    assert found(model) == (frozenset({2}), frozenset({chosen}))


def test_ranks_are_followed_through_nodes_that_change_them():
    tail = [helper.make_node("Unsqueeze", ["j", "axes"], ["u"]), helper.make_node("Tanh", ["u"], ["r"])]
    tail += [helper.make_node("Squeeze", ["r", "axes"], ["k"]), helper.make_node("Gemm", ["k", "v"], ["y"])]
    assert found(joined("Squeeze", "Identity", *tail))[0] == frozenset({2})


def test_without_a_node_that_decides_both_branches_may_run():
    model = joined("Squeeze", "Identity", helper.make_node("Sigmoid", ["j"], ["y"]))
    assert found(model) == (frozenset({2, 3}), frozenset({0, 1}))


def test_a_graph_that_cannot_run_says_nothing():
    model = joined("Unsqueeze", "Identity", helper.make_node("Gemm", ["j", "v"], ["y"]))
    assert found(model) == (None, None)


@pytest.mark.parametrize("overridden", [False, True])
def test_a_condition_that_a_caller_may_override_chooses_nothing(overridden):
    model = joined("Squeeze", "Identity", helper.make_node("Sigmoid", ["j"], ["y"]))
    on = model.add_weight("fixed", np.array(True))
    set_input(model.graph.nodes[1], 0, on)
    if overridden:
        model.graph.inputs.append(on)
    ranks = infer_ranks(model, infer_shapes(model))
    assert ranks.choices[id(on)] == (frozenset({0, 1}) if overridden else frozenset({1}))


def test_what_a_branch_says_of_its_own_tensors_stays_inside():
    """The inner If stands in a branch of an outer one; what both say of h is the same."""
    inner = helper.make_node(
        "If", ["on"], ["p"], then_branch=branch("a", "Squeeze"), else_branch=branch("b", "Identity")
    )
    nested = helper.make_graph([inner], "p", [], [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)])
    model = joined("Identity", "Squeeze", helper.make_node("Gemm", ["j", "v"], ["y"]))
    outer = helper.make_node("If", ["off"], ["j"], then_branch=nested, else_branch=branch("q", "Unsqueeze"))
    proto = model.to_proto()
    proto.graph.node[1].CopyFrom(outer)
    proto.graph.input.append(helper.make_tensor_value_info("off", TensorProto.BOOL, []))
    model = Model.from_proto(proto)
    ranks = infer_ranks(model, infer_shapes(model))
    (node,) = (each for each in model.graph.nodes if each.op == "If")
    assert ranks.choices[id(node.inputs[0])] == frozenset({1})
    end = node.attrs["then_branch"].outputs[0]
    assert ranks.ranks[id(end)] == frozenset({2})
    assert ranks.choices[id(end.inputs[0].inputs[0])] == frozenset({1})
