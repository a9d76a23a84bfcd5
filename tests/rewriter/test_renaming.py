"""Short names: what a node reads stays what it was, through branches and loops, and a caller sees no change."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnxpress.rewriter.renaming import short_names, shorten_names


def parse(text):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')


def run(proto, **inputs):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def names(graph):
    return [name for node in graph.node for name in [*node.input, *node.output]]


def test_those_named_most_often_get_the_shortest():
    proto = parse(
        "main (float[4] x) => (float[4] y) { long_one = Relu(x) rare = Neg(long_one) other = Add(long_one, rare) "
        "y = Mul(other, long_one) }"
    )
    assert shorten_names(proto) == 8
    assert names(proto.graph) == ["x", "a", "a", "b", "a", "b", "c", "c", "a", "y"]


def test_names_of_inputs_and_outputs_stay_and_are_not_taken():
    proto = parse("main (float[4] a) => (float[4] b) { inner = Relu(a) b = Neg(inner) }")
    shorten_names(proto)
    assert names(proto.graph) == ["a", "c", "c", "b"]


def test_nodes_lose_their_names_and_graphs_inside_them_keep_one():
    then, other = (
        helper.make_graph([helper.make_node(op, ["x"], [op])], f"branch_{op}", [], [value(op)])
        for op in ("Relu", "Neg")
    )
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)
    proto = model([node], c=onnx.TensorProto.BOOL)
    shorten_names(proto)
    (node,) = proto.graph.node
    assert not node.name
    assert [attribute.g.name for attribute in node.attribute] == ["g", "g"]
    onnx.checker.check_model(proto)
    x = np.float32([-1, 2])
    np.testing.assert_array_equal(run(proto, x=x, c=np.array(True))[0], [0, 2])
    np.testing.assert_array_equal(run(proto, x=x, c=np.array(False))[0], [1, -2])


def value(name, dtype=onnx.TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, initializers=(), **others):
    inputs = [value("x", shape=[2]), *(value(name, dtype, []) for name, dtype in others.items())]
    graph = helper.make_graph(nodes, "main", inputs, [value("y", shape=[2])], initializer=list(initializers))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_what_the_body_of_a_loop_takes_from_outside_stays_what_it_was():
    """The body reads a weight and a tensor of the main graph; both branches of its If read those of the body."""
    branches = [
        helper.make_graph([helper.make_node(op, ["carried", "outer"], ["chosen"])], op, [], [value("chosen")])
        for op in ("Add", "Sub")
    ]
    body = helper.make_graph(
        [
            helper.make_node("Greater", ["turn", "border"], ["late"]),
            helper.make_node("If", ["late"], ["summed"], then_branch=branches[0], else_branch=branches[1]),
            helper.make_node("Mul", ["summed", "weight"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [value("turn", onnx.TensorProto.INT64, []), value("go", onnx.TensorProto.BOOL, []), value("carried")],
        [value("go_on", onnx.TensorProto.BOOL), value("next")],
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("Loop", ["count", "", "x"], ["y"], body=body),
    ]
    constants = {"weight": np.float32([2, 3]), "border": np.int64(1), "count": np.int64(4)}
    proto = model(nodes, [numpy_helper.from_array(array, name) for name, array in constants.items()])
    x = np.float32([1.5, -2])
    before = run(proto, x=x)[0]
    assert shorten_names(proto) > 20
    onnx.checker.check_model(proto)
    np.testing.assert_array_equal(run(proto, x=x)[0], before)
    assert max(map(len, names(proto.graph))) == 1
    assert shorten_names(proto) == 0


def test_names_that_nothing_defines_stay_and_are_not_taken():
    proto = parse("main (float[4] x) => (float[4] y) { inner = Relu(x) y = Add(inner, a) }")
    shorten_names(proto)
    assert names(proto.graph) == ["x", "b", "b", "a", "y"]


def test_a_default_of_an_input_keeps_its_name():
    proto = parse("main (float[4] x, float[4] bias) => (float[4] y) { y = Add(x, bias) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "bias"))
    assert shorten_names(proto) == 0


def test_annotations_name_what_they_named():
    proto = parse("main (float[4] x) => (float[4] y) { inner = Relu(x) y = Mul(inner, scale) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "scale"))
    note = proto.graph.quantization_annotation.add(tensor_name="inner")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    shorten_names(proto)
    assert note.tensor_name == proto.graph.node[0].output[0]
    assert note.quant_parameter_tensor_names[0].value == proto.graph.initializer[0].name != "scale"


def test_leaves_models_whose_training_information_names_weights():
    proto = parse("main (float[4] x) => (float[4] y) { inner = Relu(x) y = Neg(inner) }")
    proto.training_info.add().algorithm.name = "step"
    assert shorten_names(proto) == 0


@pytest.mark.parametrize(("count", "length"), [(52, 1), (53, 2), (52 + 52 * 62, 2), (53 + 52 * 62, 3)])
def test_names_are_as_short_as_can_be_and_differ(count, length):
    found = list(itertools.islice(short_names(set()), count))
    assert len(set(found)) == count
    assert len(found[-1]) == length
    assert not any(name[0].isdigit() for name in found)
