import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.prune.blocks.branch import remove_branch
from onnxpress.passes.prune.blocks.residual import find_branches
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.shapes import infer_shapes


def find(model, *, gates=False):
    return find_branches(model, infer_shapes(model), gates=gates)


def layer(index, x, y):
    return helper.make_node("MatMul", [x, f"w{index}"], [y], name=f"fc{index}")


@pytest.fixture
def weights(random):
    return {f"w{index}": random.standard_normal((8, 8), np.float32) for index in range(5)}


def test_finds_what_stands_beside_a_shortcut(build, weights):
    nodes = [
        layer(0, "x", "a"),
        helper.make_node("Relu", ["a"], ["b"]),
        layer(1, "b", "c"),
        helper.make_node("Add", ["x", "c"], ["y"], name="join"),
    ]
    model = build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8))
    (branch,), refused = find(model)
    assert refused == []
    assert (branch.name, branch.index, branch.certain, branch.gate) == ("fc0", 1, True, False)
    assert [node.op for node in branch.nodes] == ["MatMul", "Relu", "MatMul"]
    assert [each.name for each in branch.constants] == ["w0", "w1"]
    assert branch.kept.name == "x"


def test_leaves_what_is_needed_elsewhere(build, weights):
    """The first layer is also read behind the join, the second alone goes; its weight is shared and stays."""
    nodes = [
        layer(0, "x", "a"),
        layer(1, "a", "b"),
        helper.make_node("Add", ["x", "b"], ["s"]),
        helper.make_node("Mul", ["s", "a"], ["m"]),
        helper.make_node("MatMul", ["m", "w1"], ["y"]),
    ]
    (branch,), _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8)))
    assert branch.name == "fc1"
    assert branch.constants == ()


def test_either_side_of_a_projection_can_go(build, weights):
    nodes = [layer(0, "x", "a"), layer(1, "x", "b"), helper.make_node("Add", ["a", "b"], ["y"])]
    branches, _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8)))
    assert [(each.name, each.kept.name) for each in branches] == [("fc0", "b"), ("fc1", "a")]
    assert branches[0].join is branches[1].join


def test_finds_branches_inside_of_branches(build, weights):
    nodes = [
        layer(0, "x", "a"),
        layer(1, "a", "b"),
        helper.make_node("Add", ["a", "b"], ["c"], name="inner"),
        layer(2, "c", "d"),
        helper.make_node("Add", ["d", "x"], ["y"], name="outer"),
    ]
    branches, _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1", "w2")}, x=("n", 8)))
    assert [(each.name, each.join.name) for each in branches] == [("fc0", "outer"), ("fc1", "inner")]
    assert branches[0].holds(branches[1])
    assert not branches[1].holds(branches[0])


def test_parallel_branches_go_apart_and_the_shortcut_stays(build, weights):
    nodes = [
        layer(0, "x", "a"),
        helper.make_node("Add", ["x", "a"], ["s"], name="first"),
        layer(1, "x", "b"),
        helper.make_node("Add", ["s", "b"], ["y"], name="second"),
    ]
    branches, _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8)))
    assert [(each.name, each.join.name) for each in branches] == [("fc0", "first"), ("fc1", "second")]


def test_parallel_branches_may_read_what_they_share(build, weights):
    """As attention and feed-forward do that read one normalised x."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["m"]),
        layer(0, "m", "a"),
        helper.make_node("Add", ["x", "a"], ["s"], name="first"),
        layer(1, "m", "b"),
        helper.make_node("Add", ["s", "b"], ["y"], name="second"),
    ]
    branches, _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8)))
    assert [(each.name, each.join.name) for each in branches] == [("fc0", "first"), ("fc1", "second")]


def test_branches_of_equal_first_layers_have_names_of_their_own(build, weights):
    nodes = [
        layer(0, "x", "a"),
        helper.make_node("Add", ["x", "a"], ["s"], name="one"),
        helper.make_node("MatMul", ["s", "w0"], ["b"], name="again"),
        helper.make_node("Add", ["s", "b"], ["y"], name="two"),
    ]
    branches, _ = find(build(nodes, {"w0": weights["w0"]}, x=("n", 8)))
    assert [each.name for each in branches] == ["fc0"]  # the shared weight is a site of its first node


@pytest.mark.parametrize(
    ("nodes", "names", "x", "reason"),
    [
        (
            [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["x", "a"], ["y"], name="join")],
            (),
            ("n", 8),
            "no linear layer serves 'x' alone; no linear layer serves 'a' alone",
        ),
        (
            [
                layer(0, "x", "a"),
                helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
                helper.make_node("Add", ["m", "a"], ["y"], name="join"),
            ],
            ("w0",),
            (4, 8),
            "no linear layer serves 'm' alone; 'm' [1, 8] is smaller than the result [4, 8]",
        ),
        (
            [
                helper.make_node("RandomNormal", [], ["r"], shape=[4, 8]),
                layer(0, "x", "a"),
                helper.make_node("Add", ["r", "a"], ["y"], name="join"),
            ],
            ("w0",),
            (4, 8),
            "no linear layer serves 'r' alone; 'r' does not come from what 'a' is computed from",
        ),
    ],
)
def test_says_why_a_sum_has_no_branch(build, weights, nodes, names, x, reason):
    branches, (refused,) = find(build(nodes, {name: weights[name] for name in names}, x=x))
    assert branches == []
    assert (refused.name, refused.reason) == ("join", reason)


def test_a_branch_that_holds_the_shortcut_stays(build, weights):
    """Of x + f(x) and g(x) only g may go, or f in the first sum: without both x itself would be lost."""
    nodes = [
        layer(0, "x", "a"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        layer(1, "x", "b"),
        helper.make_node("Add", ["r", "b"], ["y"], name="join"),
    ]
    branches, _ = find(build(nodes, {name: weights[name] for name in ("w0", "w1")}, x=("n", 8)))
    assert [(each.name, each.kept.name) for each in branches] == [("fc0", "x"), ("fc1", "r")]


def test_what_a_subgraph_reads_is_needed(build, weights):
    y = helper.make_tensor_value_info("t", 1, None)
    bodies = [helper.make_graph([helper.make_node(op, ["a"], ["t"])], "branch", [], [y]) for op in ("Relu", "Identity")]
    nodes = [
        layer(0, "x", "a"),
        helper.make_node("Add", ["x", "a"], ["s"], name="join"),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Less", ["m", "most"], ["which"]),
        helper.make_node("If", ["which"], ["u"], then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("Add", ["s", "u"], ["y"], name="last"),
    ]
    model = build(nodes, {"w0": weights["w0"], "most": np.array(1, np.float32)}, x=("n", 8))
    branches, refused = find(model)
    assert branches == []
    assert "no linear layer serves 'a' alone" in refused[0].reason


def squeeze_and_excite(build, random, *, x=("n", 4, 6, 6)):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Conv", ["p", "v"], ["q"], name="squeeze"),
        helper.make_node("Sigmoid", ["q"], ["g"]),
        helper.make_node("Mul", ["h", "g"], ["m"], name="gate"),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("Mul", ["m", "s"], ["y"], name="swish"),
    ]
    arrays = {name: random.standard_normal((4, 4, 1, 1), np.float32) for name in ("w", "v")}
    return build(nodes, arrays, x=x)


def test_finds_gates_where_asked_to(build, random):
    model = squeeze_and_excite(build, random)
    assert find(model) == ([], [])
    (branch,), refused = find(model, gates=True)
    assert (branch.name, branch.gate, branch.axis, refused) == ("squeeze", True, 1, [])


def test_samples_must_tell_where_sizes_are_unknown(build, weights):
    nodes = [layer(0, "x", "a"), helper.make_node("Add", ["x", "a"], ["y"])]
    model = build(nodes, {"w0": weights["w0"]}, x=(None, 8))
    (branch,), _ = find(model)
    assert not branch.certain


@pytest.mark.parametrize("stand_in", [None, 0.5])
def test_removes_a_branch(build, run, weights, stand_in):
    nodes = [layer(0, "x", "a"), helper.make_node("Add", ["x", "a"], ["y"])]
    model = build(nodes, {"w0": weights["w0"]}, x=("n", 8))
    (branch,), _ = find(model)
    constant = None if stand_in is None else model.add_weight("c", np.array(stand_in, np.float32))
    remove_branch(model, branch, constant)
    sweep(model)
    x = np.ones((3, 8), np.float32)
    np.testing.assert_array_equal(run(model, x)[0], x + (stand_in or 0))
    assert [node.op for node in model.graph.nodes] == (["Identity"] if stand_in is None else ["Add"])


def test_an_output_inside_a_branch_keeps_it(build, weights):
    nodes = [layer(0, "x", "a"), helper.make_node("Add", ["x", "a"], ["y"], name="join")]
    branches, (refused,) = find(build(nodes, {"w0": weights["w0"]}, x=("n", 8), outputs=("y", "a")))
    assert branches == []
    assert refused.name == "join"


def test_functions_of_other_domains_are_no_sums(build, weights):
    node = onnx.helper.make_node("Add", ["x", "a"], ["y"], domain="mine")
    assert find(build([layer(0, "x", "a"), node], {"w0": weights["w0"]}, x=("n", 8))) == ([], [])
