"""Models cut down to what some tensors need."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.cut import between, check_tensors, cut, nodes_between, opset_of, read_model
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, ModelError


def test_drops_what_the_outputs_do_not_need(linear):
    model = read_model(linear)
    part = cut(model, ["hidden"])
    assert [node.op_type for node in part.graph.node] == ["MatMul"]
    assert Runner(part.SerializeToString()).output_names == ("hidden",)
    part = cut(model, ["x"])
    assert not part.graph.node
    assert not part.graph.initializer


def test_leaves_the_model_as_it_is_and_copies_all_else(linear):
    model = read_model(linear)
    model.graph.doc_string = "kept"
    model.metadata_props.add(key="author", value="me")
    before = model.SerializeToString(deterministic=True)
    part = cut(model, ["y"], after={"y": [helper.make_node("Size", ["y"], ["size"])]})
    assert model.SerializeToString(deterministic=True) == before
    del part.graph.output[:]
    part.graph.output.extend(model.graph.output)
    assert part == model


def test_added_nodes_stand_behind_what_they_read(linear):
    after = {name: [helper.make_node("Size", [name], [f"size_{name}"])] for name in ("x", "w", "hidden")}
    model = cut(read_model(linear), ["size_x", "size_w", "size_hidden", "y"], after=after)
    assert [node.op_type for node in model.graph.node] == ["Size", "Size", "MatMul", "Size", "Relu"]
    sizes = Runner(model.SerializeToString()).run({"x": np.ones((2, 4), np.float32)})
    assert [int(sizes[f"size_{name}"]) for name in ("x", "w", "hidden")] == [8, 12, 6]


def branching() -> onnx.ModelProto:
    """y = c ? relu(x) : x, where relu(x) is computed outside of the branch."""
    inside = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    outside = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node("Identity", ["r"], ["inside"])], "then", [], [inside])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["r2"])], "else", [], [outside])
    other.output[0].name = "r2"
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Neg", ["x"], ["unused"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [x, c], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_keeps_what_a_branch_reads_from_outside():
    model = cut(branching(), ["y"])
    assert [node.op_type for node in model.graph.node] == ["Relu", "If"]
    result = Runner(model.SerializeToString()).run({"x": np.array([-1, 1], np.float32), "c": np.array(True)})
    np.testing.assert_array_equal(result["y"], [0, 1])


def test_refuses_tensors_outside_the_main_graph():
    model = branching()
    check_tensors(model, ["x", "r", "y"])
    for tensor in ("inside", "nothing", ""):
        with pytest.raises(ConfigError, match=f"tensor '{tensor}' is not in the main graph"):
            check_tensors(model, [tensor])


def test_finds_the_opset(linear):
    assert opset_of(read_model(linear)) == 17
    assert opset_of(onnx.ModelProto()) == 0


def test_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no file .*; check the path"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="the model is no ONNX model, or cut short"):
        read_model(b"garbage")
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"bad.onnx is no ONNX model, or cut short"):
        read_model(tmp_path / "bad.onnx")


@pytest.mark.parametrize("listed", [False, True])
def test_a_light_part_has_inputs_in_place_of_large_weights(save_model, listed):
    weights = {"w": np.zeros((20, 20), np.float32), "b": np.zeros(20, np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    model = read_model(save_model(nodes, {"x": ["n", 20]}, ["y"], weights=weights))
    if listed:  # as before IR version 4, where a weight is an input with a default
        model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [20, 20]))
    light = cut(model, ["y"], light=True)
    assert [value.name for value in light.graph.input] == ["x", "w"]
    assert [weight.name for weight in light.graph.initializer] == ["b"]
    assert Runner(light.SerializeToString()).output_shapes == {"y": ("n", 20)}


def declared(name, *shape):
    return {name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)}


def chain(save_model):
    """x -> a, b (a Split) -> c = a @ w -> y = b + c + v."""
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        helper.make_node("MatMul", ["a", "w"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Add", ["d", "v"], ["y"]),
    ]
    weights = {"w": np.eye(2, dtype=np.float32), "v": np.ones(2, np.float32)}
    return read_model(save_model(nodes, {"x": ["n", 4]}, ["y"], weights=weights, opset=17))


def test_a_part_between_reads_what_is_given_and_nothing_above(save_model):
    part = between(chain(save_model), declared("c", "n", 2) | declared("b", "n", 2) | declared("x", "n", 4), ["y"])
    assert [node.op_type for node in part.graph.node] == ["Add", "Add"]
    assert [value.name for value in part.graph.input] == ["c", "b"]
    assert [weight.name for weight in part.graph.initializer] == ["v"]
    ones = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(Runner(part.SerializeToString()).run({"b": ones, "c": ones})["y"], 3 * ones)


def test_a_node_runs_again_for_another_output_than_the_one_that_is_given(save_model):
    part = between(chain(save_model), declared("a", "n", 2) | declared("x", "n", 4), ["y"])
    assert [node.op_type for node in part.graph.node] == ["Split", "MatMul", "Add", "Add"]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = Runner(part.SerializeToString()).run({"x": x, "a": 0 * x[:, :2]})["y"]
    np.testing.assert_array_equal(found, x[:, 2:] + 1)


def test_a_part_between_lists_weights_as_inputs_where_the_model_does(save_model):
    model = chain(save_model)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in (("w", [2, 2]), ("v", [2]))
    )
    part = between(model, declared("d", "n", 2), ["y"])
    assert [value.name for value in part.graph.input] == ["v", "d"]
    ones = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(Runner(part.SerializeToString()).run({"d": ones})["y"], 2 * ones)


def test_nodes_between_stop_at_what_is_given(save_model):
    graph = chain(save_model).graph
    assert [node.op_type for node in nodes_between(graph, {"c", "x"}, ["y"])] == ["Split", "Add", "Add"]
    assert nodes_between(graph, {"y"}, ["y"]) == []
