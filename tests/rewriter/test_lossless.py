"""Load, save: whatever a model says, it says afterwards."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.model import Model

BIG = np.arange(1000, dtype=np.float32)


def base(*nodes: onnx.NodeProto, initializers: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1000])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1000])
    nodes = nodes or (helper.make_node("Add", ["x", "w"], ["y"], name="add"),)
    initializers = [numpy_helper.from_array(BIG, "w")] if initializers is None else initializers
    graph = helper.make_graph(list(nodes), "g", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def metadata() -> onnx.ModelProto:
    model = base()
    for place in (model, model.graph, model.graph.node[0], model.graph.initializer[0], model.graph.input[0]):
        place.metadata_props.add(key="k", value="v")
        place.doc_string = "said"
    model.producer_name, model.model_version, model.domain = "somebody", 7, "here"
    return model


def quantization_annotation() -> onnx.ModelProto:
    model = base()
    note = model.graph.quantization_annotation.add(tensor_name="y")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    return model


def unused_initializer() -> onnx.ModelProto:
    return base(initializers=[numpy_helper.from_array(BIG, "w"), numpy_helper.from_array(BIG + 1, "nobody")])


def overridable_initializer() -> onnx.ModelProto:
    model = base()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1000]))
    return model


def captured_by_branches() -> onnx.ModelProto:
    branch = [
        helper.make_graph([helper.make_node(op, ["x", "w"], [op])], op, [], [helper.make_empty_tensor_value_info(op)])
        for op in ("Add", "Sub")
    ]
    model = base(helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1]))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return model


def odd_weights() -> onnx.ModelProto:
    dtypes = ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "int4", "uint4"]
    odd = [numpy_helper.from_array(np.arange(3000).astype(getattr(ml_dtypes, d)), d) for d in dtypes]
    text = helper.make_tensor("text", TensorProto.STRING, [2], ["a", "b" * 2000])
    return base(initializers=[numpy_helper.from_array(BIG, "w"), *odd, text])


def other_types() -> onnx.ModelProto:
    model = base()
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [None])
    model.graph.input.append(helper.make_value_info("s", helper.make_sequence_type_proto(element)))
    model.graph.input.append(helper.make_value_info("o", helper.make_optional_type_proto(element)))
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    return model


def attributes() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.arange(4.0), "t")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1)), numpy_helper.from_array(np.zeros(1, int)), [3]
    )
    node = helper.make_node("Odd", ["x", "", "w"], ["y", ""], domain="custom", f=1.0, fs=[1.0], s=b"\xff", ss=["a"])
    node.attribute.append(helper.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    node.attribute.append(helper.make_attribute("ts", [tensor, tensor]))
    node.attribute.append(helper.make_attribute("sparse", sparse))
    node.attribute.append(helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    model = base(node)
    model.opset_import.append(helper.make_opsetid("custom", 3))
    return model


def sparse_initializer() -> onnx.ModelProto:
    model = base(initializers=[])
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([3, 999])), [1000])
    )
    return model


def functions() -> onnx.ModelProto:
    text = """<ir_version: 10, opset_import: ["": 21, "f": 1]>
    g (float[n] x) => (float[n] y) { y = f.twice (x) }
    <domain: "f", opset_import: ["": 21], doc_string: "doubles"> twice (a) => (b) { b = Add (a, a) }"""
    model = onnx.parser.parse_model(text)
    model.functions[0].overload = "v2"
    model.graph.node[0].overload = "v2"
    return model


FEATURES = [
    metadata, quantization_annotation, unused_initializer, overridable_initializer, captured_by_branches,
    odd_weights, other_types, attributes, sparse_initializer, functions,
]  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_survives(feature: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    original = feature()
    onnx.save(original, tmp_path / "a.onnx")
    model = Model.load(tmp_path / "a.onnx")
    model.save(tmp_path / "b.onnx")
    assert onnx.load(tmp_path / "b.onnx") == original
    assert model.clone().to_proto() == original
    assert Model.from_proto(original).to_proto() == original


def test_external_data_survives(tmp_path: Path) -> None:
    original = base()
    onnx.save(original, tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    model = Model.load(tmp_path / "a.onnx")
    model.save(tmp_path / "b.onnx")
    assert onnx.load(tmp_path / "b.onnx", load_external_data=False).graph.initializer[0].external_data
    model.save(tmp_path / "c.onnx", external_data=False)
    for name in ("b", "c"):
        again = onnx.load(tmp_path / f"{name}.onnx")
        np.testing.assert_array_equal(numpy_helper.to_array(again.graph.initializer[0]), BIG)


def test_typed_fields_come_back_as_raw_bytes(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1000], BIG)
    assert not tensor.raw_data
    model = Model.from_proto(base(initializers=[tensor]))
    np.testing.assert_array_equal(numpy_helper.to_array(model.to_proto().graph.initializer[0]), BIG)
