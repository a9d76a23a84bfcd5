import numpy as np

from onnxpress.rewriter import edits
from onnxpress.rewriter.walk import nodes


def test_sweep_removes_what_nobody_reads(parse, run) -> None:
    model = parse(
        "g (float[3] x) => (float[3] y) { a = Relu(x) b = Neg(a) c = Exp(a) y = Add(a, w) }",
        w=np.ones(3, np.float32),
        v=np.ones(9),
    )
    assert edits.sweep(model) == 2
    assert [n.op for n in model.graph.nodes] == ["Relu", "Add"]
    assert [c.name for c in model.graph.constants] == ["w"]


def test_sweep_keeps_what_a_branch_reads(parse) -> None:
    model = parse(
        "g (float[3] x, bool c) => (float[3] y) { a = Relu(x) "
        "y = If (c) <then_branch = t () => (float[3] b) { b = Neg(a) }, "
        "else_branch = e () => (float[3] d) { d = Abs(a) }> }"
    )
    assert edits.sweep(model) == 0
    assert sorted(n.op for _, n in nodes(model.graph)) == ["Abs", "If", "Neg", "Relu"]


def test_sort_is_stable_and_finds_its_way(parse) -> None:
    model = parse("g (float[3] x) => (float[3] y) { a = Relu(x) b = Neg(x) y = Add(a, b) }")
    model.graph.nodes.reverse()
    edits.sort(model.graph)
    assert [n.op for n in model.graph.nodes] == ["Neg", "Relu", "Add"]


def test_redirect_keeps_the_name_of_an_output(parse, run) -> None:
    model = parse("g (float[3] x) => (float[3] y) { a = Relu(x) y = Neg(a) }")
    relu, neg = model.graph.nodes
    edits.redirect(model, model.graph, neg.outputs[0], relu.outputs[0])
    edits.sweep(model)
    assert model.outputs == ("y",)
    assert [n.op for n in model.graph.nodes] == ["Relu"]
    np.testing.assert_array_equal(run(model, x=np.array([-1, 0, 2], np.float32))[0], [0, 0, 2])


def test_redirect_of_an_output_to_an_input_needs_an_identity(parse, run) -> None:
    model = parse("g (float[3] x) => (float[3] y) { y = Neg(x) }")
    edits.redirect(model, model.graph, model.graph.outputs[0], model.graph.inputs[0])
    edits.sweep(model)
    assert [n.op for n in model.graph.nodes] == ["Identity"]
    np.testing.assert_array_equal(run(model, x=np.ones(3, np.float32))[0], np.ones(3))


def test_edits_go_by_identity_not_by_name(parse) -> None:
    model = parse("g (float[3] x) => (float[3] y) { a = Relu(x) b = Relu(x) y = Add(a, b) }")
    first, second, add = model.graph.nodes
    edits.set_input(add, 1, first.outputs[0])
    assert not second.outputs[0].outputs
    assert len(first.outputs[0].outputs) == 2


def test_new_names_are_free_in_all_graphs(parse) -> None:
    model = parse(
        "g (float[3] x, bool c) => (float[3] y) { "
        "y = If (c) <then_branch = t () => (float[3] b) { b = Neg(x) }, "
        "else_branch = e () => (float[3] d) { d = Abs(x) }> }"
    )
    assert [model.names.fresh(hint) for hint in ("b", "b", "new", "new")] == ["b_1", "b_2", "new", "new_1"]
