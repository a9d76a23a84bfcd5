import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.rewriter.couplings import find_couplings, remove_units
from onnxpress.rewriter.couplings.engine import rule_of, write_ledger
from onnxpress.rewriter.couplings.ledger import Contradiction, Ledger, UnknownShape
from onnxpress.rewriter.couplings.links import Links
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def mlp(parse, body: str, **weights: np.ndarray) -> Model:
    """Six neurons h, and what `body` makes of them, r, in front of the last layer."""
    return parse(
        f"g (float[2,4] x) => (float[2,3] y) {{ h = MatMul(x, w) {body} y = MatMul(r, last) }}",
        w=f32(4, 6),
        last=f32(6, 3),
        **weights,
    )


def frozen(model: Model, name: str = "w") -> str | None:
    return find_couplings(model).by_name(name).frozen


@pytest.fixture
def links(parse) -> Links:
    """Of an Add that reads a[2,6] and b[6,6]."""
    model = parse("g (float[2,6] a, float[6,n] b) => (float[2,6] y) { y = Add(a, b) }")
    return Links(model.graph.nodes[0], infer_shapes(model), model, Ledger(), outputs=set())


def test_what_lies_between_two_layers_may_go(parse) -> None:
    assert frozen(mlp(parse, "r = Relu(h)")) is None


def test_an_operator_without_a_rule_freezes_what_it_touches(parse) -> None:
    assert frozen(mlp(parse, "r = Det(h)")) == "Det 'r': no rule says what it does with axes"


def test_a_function_freezes_even_where_it_is_called_like_an_operator(parse) -> None:
    model = mlp(parse, "r = Relu(h)")
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert "no rule" in str(frozen(model))


def test_an_operator_of_another_domain_has_no_rule(parse) -> None:
    node = mlp(parse, "r = Relu(h)").graph.nodes[1]
    assert rule_of(node) is not None
    node.domain = "ai.onnx"
    assert rule_of(node) is not None
    node.domain = "org.elsewhere"
    assert rule_of(node) is None


def test_graph_inputs_and_outputs_stay(parse) -> None:
    groups = {group.name: group.frozen for group in find_couplings(mlp(parse, "r = Relu(h)")).groups}
    assert groups["last"] == "'y' is an output of the model"
    assert groups["x:1"] == "'x' is an input of the model"


def test_a_constant_that_a_caller_may_override_stays(parse) -> None:
    model = mlp(parse, "r = Add(h, c)", c=f32(6))
    model.graph.inputs.append(next(t for t in model.constants() if t.name == "c"))
    assert frozen(model) == "'c' is an input of the model"


def test_a_constant_that_is_an_output_stays(parse) -> None:
    model = mlp(parse, "r = Add(h, c)", c=f32(6))
    model.graph.outputs.append(next(t for t in model.constants() if t.name == "c"))
    assert frozen(model) == "'c' is an output of the model"


def test_an_unknown_shape_freezes_its_neighbours(parse) -> None:
    model = mlp(parse, "s = Relu(h) r = Relu(s)")
    shapes = infer_shapes(model)
    shapes.known.pop(id(model.graph.nodes[1].outputs[0]))
    ledger, _ = write_ledger(model, shapes)
    place = ledger.numbers[id(model.graph.nodes[0].outputs[0]), 1]
    assert (place, None, "Relu 's': the shape of 's' is unknown") in ledger.kept


def test_branches_that_read_a_tensor_from_outside_follow_their_own_rules(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x, bool c) => (float[2,3] y) { h = MatMul(x, w) y = If (c) "
        "<then_branch = t () => (float[2,3] a) { r = Relu(h) a = MatMul(r, v1) }, "
        "else_branch = e () => (float[2,3] b) { b = MatMul(h, v2) }> }",
        w=f32(4, 6),
        v1=f32(6, 3),
        v2=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(2, 4), c=np.array(True)) == {"w": 6}
    assert {t.name: t.shape for t in model.constants()} == {"w": (4, 3), "v1": (3, 3), "v2": (3, 3)}


def test_a_branch_that_looks_at_the_whole_freezes(parse) -> None:
    model = parse(
        "g (float[2,4] x, bool c) => (float[2,3] y) { h = MatMul(x, w) z = MatMul(h, last) y = If (c) "
        "<then_branch = t () => (float[2,3] a) { r = Softmax(h) s = ReduceMax<axes=[1]>(r) a = Add(s, z) }, "
        "else_branch = e () => (float[2,3] b) { b = Identity(z) }> }",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    assert "Softmax" in str(frozen(model))


def test_a_clone_gives_equal_names_in_equal_order(parse) -> None:
    model = mlp(parse, "a = Relu(h) b = MatMul(a, mid) r = Add(a, b)", mid=f32(6, 6))
    first, second = (
        [(g.name, g.kind, g.size, g.frozen, [(m.tensor.name, m.axis, m.role, m.indices.tolist()) for m in g.members])
         for g in find_couplings(each).groups]
        for each in (model, model.clone())
    )  # fmt: skip
    assert first == second


def test_a_tensor_that_is_read_twice_must_be_mentioned_twice(parse) -> None:
    model = parse("g (float[2,6] a) => (float[2,6] y) { y = Add(a, a) }")
    links = Links(model.graph.nodes[0], infer_shapes(model), model, Ledger(), outputs=set())
    a, y = links.node.inputs[0], links.node.outputs[0]
    for axis in (0, 0, 1):
        links.tie((a, axis), (y, axis))
    links.close()
    assert [reason for _, _, reason in links._ledger.kept] == ["Add 'y' reads axis 1 of 'a' whole"]


def test_ties_of_unequal_sizes_freeze_both(links: Links) -> None:
    a, _ = links.node.inputs
    links.tie((a, 0), (a, 1))
    assert {reason for _, _, reason in links._ledger.kept} == {"Add 'y' pairs 2 with 6 elements, which it should not"}
    assert len(links._ledger.kept) == 2


def test_a_tie_with_a_size_that_is_not_fixed_freezes_the_other(links: Links) -> None:
    a, b = links.node.inputs
    links.tie((a, 1), (b, 1))
    assert [reason for _, _, reason in links._ledger.kept] == ["the size of axis 1 of 'b' is not fixed"]


@pytest.mark.parametrize(
    ("at", "to", "reason"),
    [
        ([0, 1], [0, 1, 2], "Add 'y' pairs 2 with 3 elements, which it should not"),
        ([5, 6], [0, 1], "Add 'y' reaches beyond the 6 elements of axis 1 of 'a'"),
        ([0, 1], [-1, 0], "Add 'y' reaches beyond the 6 elements of axis 0 of 'b'"),
    ],
)
def test_ties_of_elements_that_do_not_pair_freeze_both(links: Links, at: list, to: list, reason: str) -> None:
    a, b = links.node.inputs
    links.tie((a, 1), (b, 0), at=np.array(at), to=np.array(to))
    assert [(links._ledger.places[number], part, why) for number, part, why in links._ledger.kept] == [
        ((a, 1), None, reason),
        ((b, 0), None, reason),
    ]
    assert not links._ledger.parts


def test_elements_that_are_not_there_freeze_the_whole_axis(links: Links) -> None:
    a, _ = links.node.inputs
    links.keep((a, 1), "why", at=np.array([2, 6]))
    assert [(at, reason) for _, at, reason in links._ledger.kept] == [(None, "why")]


def test_labels_are_one_for_each_element(links: Links) -> None:
    with pytest.raises(Contradiction, match="it sorts 6 elements as though they were 2"):
        links.unite((links.node.inputs[0], 1), np.arange(2))


def test_a_tensor_has_no_axis_beyond_its_rank(links: Links) -> None:
    a, b = links.node.inputs
    for axis in (2, -3):
        with pytest.raises(Contradiction, match=f"'a' has 2 axes, so none of number {axis}"):
            links.tie((a, axis), (b, 0))
        with pytest.raises(Contradiction, match="'a' has 2 axes"):
            links.size(a, axis)


def test_what_a_rule_does_not_mention_is_frozen(links: Links) -> None:
    a, _ = links.node.inputs
    links.tie((a, 1), (links.node.outputs[0], -1))
    links.leave((a, 0))
    links.close()
    assert [reason for _, _, reason in links._ledger.kept] == [
        "Add 'y' reads axis 0 of 'b' whole",
        "Add 'y' makes axis 0 of 'y' whole",
    ]


def test_tensors_of_another_rank_are_not_the_same(links: Links, parse) -> None:
    other = parse("g (float[2] z) => (float[2] y) { y = Relu(z) }")
    with pytest.raises(UnknownShape, match="the shape of 'z' is unknown"):
        links.same(links.node.inputs[0], other.graph.inputs[0])


def test_no_group_of_that_name(parse) -> None:
    with pytest.raises(ModelError, match="no group of coupled axes is called 'nobody'"):
        find_couplings(mlp(parse, "r = Relu(h)")).by_name("nobody")


def test_a_model_without_weights_has_no_groups(parse) -> None:
    assert find_couplings(parse("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }")).groups == ()


def test_weights_of_constant_nodes_stay(parse) -> None:
    model = mlp(parse, "c = Constant <value = float[6] {1, 2, 3, 4, 5, 6}> () r = Mul(h, c)")
    assert "Constant" in str(frozen(model))


def test_axes_without_elements_do_no_harm() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Concat", ["h", "none"], ["r"], axis=1),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    constants = [("w", f32(4, 6)), ("none", f32(2, 0)), ("last", f32(6, 3))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants],
    )
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    group = find_couplings(model).by_name("w")
    assert (group.frozen, group.size) == (None, 6)
    remove_units(model, {group: np.array([5])})
    assert [t.shape for t in model.constants() if t.name in ("w", "last")] == [(4, 5), (5, 3)]
