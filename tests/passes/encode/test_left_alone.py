"""What `encode` leaves alone, and why."""

import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model


def reasons(report):
    return {skip.site: skip.reason for skip in report.skips}


def test_says_why_it_left_weights_alone(make_model, make_weight):
    weights = {"random": make_weight((64, 64)), "bias": make_weight((64,)), "four": make_weight((64, 64), distinct=4)}
    report = Encode(exclude=("four",))(make_model(weights)).report
    assert report.changes == []
    assert reasons(report)["node0"].startswith("saves nothing: 4096 elements, too many of them distinct")
    assert reasons(report)["bias"].startswith("saves nothing: codes of 8 bits would take")
    assert reasons(report)["node2"] == "excluded by the recipe"


def test_a_gain_smaller_than_the_functions_is_none(make_model, make_weight):
    report = Encode()(make_model({"w": make_weight((8, 8), distinct=24)})).report
    assert report.changes == []
    assert reasons(report)["node0"].startswith("saves too little: codes of 8 bits would take")
    many = {f"w{i}": make_weight((9, 9), distinct=24, seed=i) for i in range(6)}
    assert len(Encode()(make_model(many)).report.changes) == 6


@pytest.mark.parametrize(("include", "changed"), [(("w1",), {"node1"}), (("MatMul",), {"node0", "node1"})])
def test_encodes_what_is_included(make_model, make_weight, include, changed):
    model = make_model({f"w{i}": make_weight((64, 64), distinct=4, seed=i) for i in range(2)})
    assert {change.site for change in Encode(include=include)(model).report.changes} == changed


def test_leaves_outputs_inputs_and_attributes_alone(make_weight):
    weight = make_weight((64, 64), distinct=4)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Constant", [], ["inside"], name="constant", value=numpy_helper.from_array(weight)),
        helper.make_node("MatMul", ["x", "default"], ["y0"], name="a"),
        helper.make_node("MatMul", ["y0", "inside"], ["y1"], name="b"),
        helper.make_node("MatMul", ["y1", "result"], ["y"], name="c"),
    ]
    shape = ["n", 64]
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, shape), value("default", TensorProto.FLOAT, [64, 64])],
        [value("y", TensorProto.FLOAT, shape), value("result", TensorProto.FLOAT, [64, 64])],
        [numpy_helper.from_array(weight, name) for name in ("default", "result")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report = Encode()(Model.from_proto(proto)).report
    assert report.changes == []
    assert reasons(report)["constant"] == "inside a Constant node: normalise first"
    assert "override" in reasons(report)["default"]
    assert reasons(report)["c"] == "is an output of the graph"


def test_refuses_opsets_without_the_operators(make_model, make_weight):
    report = Encode()(make_model({"w": make_weight((64, 64), distinct=4)}, opset=10)).report
    assert reasons(report)["node0"] == "opset 10 lacks operators that decode float32: raise it to 11"


def test_refuses_a_function_of_another_version(make_model, make_weight):
    model = Encode()(make_model({"w": make_weight((64, 64), distinct=4), "v": make_weight((64, 64))})).model
    next(f for f in model.functions if f.name == "Codes").doc_string = "changed"
    constant = next(c for c in model.constants() if c.name == "v")
    model.replace_weight(constant, make_weight((64, 64), distinct=4))
    with pytest.raises(ModelError, match="decode the model first"):
        Encode()(model)


def test_rejects_an_unknown_layout():
    with pytest.raises(ConfigError, match=r"layouts must be of plain, .*, got .*'huffman'"):
        Encode(layouts=("mask", "huffman"))


def test_rejects_globs_that_are_no_list():
    with pytest.raises(ConfigError, match=r"exclude must be a list of globs, got '\*head\*'"):
        Encode(exclude="*head*")


def test_tells_of_constants_inside_of_local_functions(make_model, make_weight):
    model = make_model({"w": make_weight((64, 64), distinct=4)})
    inside = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(make_weight((64,))))
    parts = ["x"], ["y"], [inside, helper.make_node("Add", ["x", "c"], ["y"])], [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Shift", *parts))
    report = Encode(measure=False)(model).report
    assert reasons(report)["Shift"] == "1 constants inside of this local function: normalise first"
