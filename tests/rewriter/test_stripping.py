"""What goes from a model file, and above all what stays."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.rewriter.stripping import drop_defaults, drop_imports, drop_metadata, drop_notes, drop_shapes

FLOAT = onnx.TensorProto.FLOAT


def value(name, shape=None, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, *, inner=(), opset=17, functions=(), domains=(), x=(1, 3, 8, 8), **weights):
    graph = helper.make_graph(nodes, "main", [value("x", x)], [value("y")], value_info=list(inner))
    graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, ir_version=8, opset_imports=imports, functions=list(functions))


def attributes(proto, index=0):
    return {each.name for each in proto.graph.node[index].attribute}


def test_shapes_that_follow_from_the_nodes_go():
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    proto = model(nodes, inner=[value("a", [1, 3, 8, 8])])
    assert drop_shapes(proto) == 1
    assert not proto.graph.value_info


def test_shapes_that_nothing_else_tells_stay():
    """An operator of a stranger, sizes that are computed, and a size that the exporter knew better."""
    nodes = [
        helper.make_node("Strange", ["x"], ["a"], domain="stranger"),
        helper.make_node("NonZero", ["a"], ["found"]),
        helper.make_node("Neg", ["found"], ["y"]),
    ]
    inner = [value("a", [4]), value("found", [1, 4], onnx.TensorProto.INT64)]
    proto = model(nodes, inner=inner, domains=["stranger"])
    assert drop_shapes(proto) == 0
    assert len(proto.graph.value_info) == 2


@pytest.mark.parametrize(("declared", "gone"), [(["n", 3], 1), (["batch", 3], 1), ([7, 3], 0)])
def test_names_of_dynamic_sizes_do_not_count_but_numbers_do(declared, gone):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    assert drop_shapes(model(nodes, inner=[value("a", declared)], x=["n", 3])) == gone


def test_shapes_in_branches_go_too():
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    branch = helper.make_graph(nodes, "branch", [], [value("b")], value_info=[value("a", [2])])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert drop_shapes(model([choice], x=[2], c=np.array(True))) == 2


def test_notes_go_and_metadata_of_the_model_stays():
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="from line 3")
    proto = model([node], w=np.ones(3, np.float32))
    proto.doc_string = proto.graph.doc_string = proto.graph.initializer[0].doc_string = "says nothing"
    proto.graph.input[0].doc_string = "a picture"
    for each in (proto, proto.graph, proto.graph.node[0]):
        each.metadata_props.add(key="labels", value="cat,dog")
    assert drop_notes(proto) == 5
    assert "says" not in str(proto)
    assert (len(proto.metadata_props), len(proto.graph.node[0].metadata_props)) == (1, 0)
    assert drop_notes(proto) == 0
    assert drop_metadata(proto) == 2
    assert "labels" not in str(proto)


def test_attributes_that_state_a_default_go():
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=1, auto_pad="NOTSET", pads=[0] * 4, strides=[1, 1], dilations=[1, 1],
        kernel_shape=[3, 3],
    )  # fmt: skip
    proto = model([node], w=np.ones((2, 3, 3, 3), np.float32))
    assert drop_defaults(proto) == 5
    assert attributes(proto) == {"kernel_shape"}


def test_attributes_that_say_something_stay():
    said = {"group": 3, "pads": [0, 0, 1, 1], "strides": [1, 2], "auto_pad": "SAME_UPPER", "dilations": [2, 2]}
    proto = model([helper.make_node("Conv", ["x", "w"], ["y"], **said)], w=np.ones((3, 1, 3, 3), np.float32))
    assert drop_defaults(proto) == 0
    assert attributes(proto) == set(said)


def test_defaults_of_other_domains_and_of_old_windows_are_not_known():
    strange = helper.make_node("Conv", ["x"], ["a"], domain="stranger", group=1)
    pool = helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2], strides=[1, 1])
    proto = model([strange, pool], opset=10, domains=["stranger"])
    assert drop_defaults(proto) == 0


def test_the_default_is_that_of_the_opset():
    """Softmax takes axis 1 up to opset 12, the last one from 13 on."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    assert [drop_defaults(model([node], opset=opset)) for opset in (12, 13)] == [0, 1]


def function(name, *nodes):
    return helper.make_function("own", name, ["a"], ["b"], list(nodes), [helper.make_opsetid("", 17)])


def test_functions_and_domains_that_nothing_uses_go():
    used = function("Used", helper.make_node("Behind", ["a"], ["b"], domain="own"))
    behind = function("Behind", helper.make_node("Relu", ["a"], ["b"]))
    unused = function("Unused", helper.make_node("Neg", ["a"], ["b"]))
    call = helper.make_node("Used", ["x"], ["y"], domain="own")
    proto = model([call], functions=[unused, used, behind], domains=["own", "ai.onnx.ml", "com.microsoft"])
    assert drop_imports(proto) == 3
    assert [each.name for each in proto.functions] == ["Used", "Behind"]
    assert [each.domain for each in proto.opset_import] == ["", "own"]
    assert drop_imports(proto) == 0
