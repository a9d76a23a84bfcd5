"""Files from outside are hostile: each is refused in one line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter import wire
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import MARK


def good() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [600]) for name in "xy")
    weight = numpy_helper.from_array(np.ones(600, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_truncated_anywhere(tmp_path: Path) -> None:
    whole = good().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x00" * 64, b"\x89PNG\r\n\x1a\n", b"{}"])
def test_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path)


def test_cut_by_a_byte_inside_a_weight(tmp_path: Path) -> None:
    model = good()
    whole = model.SerializeToString()
    start = whole.index(model.graph.initializer[0].raw_data)
    for length in (start + 1, start + 1200, start + 2399):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        refused(tmp_path / "m.onnx")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    model = good()
    model.graph.node[0].name, model.graph.doc_string = "node-name", "graph-doc"
    whole = model.SerializeToString()
    for name in (b"node-name", b"graph-doc"):
        (tmp_path / "m.onnx").write_bytes(whole.replace(name, b"\xff" + name[1:]))
        assert "UTF-8" in refused(tmp_path / "m.onnx")


def test_an_attribute_without_a_type(tmp_path: Path) -> None:
    model = good()
    model.graph.node[0].attribute.add(name="odd", f=1.0)
    onnx.save(model, tmp_path / "m.onnx")
    assert "attribute 'odd' has no type" in refused(tmp_path / "m.onnx")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "m.onnx")
    assert "is not a file" in refused(tmp_path)


def test_newer_than_the_library(tmp_path: Path) -> None:
    model, path = good(), tmp_path / "m.onnx"
    model.opset_import[0].version = 9999
    onnx.save(model, path)
    assert "opset 9999 is newer" in refused(path)
    model.opset_import[0].version, model.ir_version = 17, 9999
    onnx.save(model, path)
    assert "IR version 9999 is newer" in refused(path)


def test_weight_shorter_than_its_shape(tmp_path: Path) -> None:
    model, path = good(), tmp_path / "m.onnx"
    model.graph.initializer[0].dims[0] = 10**12
    onnx.save(model, path)
    assert "needs 4000000000000 bytes, the file holds 2400" in refused(path)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("gone.bin", "is missing"),
        ("../m.bin", "lies outside"),
        ("/etc/passwd", "is an absolute path"),
        ("C:\\m.bin", "is an absolute path"),
        ("link.bin", "lies outside"),
        ("", "names no external file"),
    ],
)
def test_external_data_only_from_the_models_folder(tmp_path: Path, location: str, why: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "m.bin").write_bytes(bytes(2400))
    (folder / "link.bin").symlink_to(tmp_path / "m.bin")
    model = good()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert why in refused(folder / "m.onnx")


@pytest.mark.parametrize(("offset", "length"), [("0", "2000"), ("100", "2400"), ("-4", "2400"), ("x", "2400")])
def test_external_data_of_another_size(tmp_path: Path, offset: str, length: str) -> None:
    (tmp_path / "m.bin").write_bytes(bytes(2400))
    model = good()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.bin"), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "m.onnx")


def test_a_file_that_shrinks_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(good(), path)
    model = Model.load(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="became shorter"):
        model.array(model.constants()[0])


def test_a_name_defined_twice(tmp_path: Path) -> None:
    model, path = good(), tmp_path / "m.onnx"
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, path)
    assert "two initializers are called 'w'" in refused(path)
    model = good()
    model.graph.node.append(model.graph.node[0])
    onnx.save(model, path)
    assert "two nodes give the tensor 'y'" in refused(path)


@pytest.mark.parametrize("entry", [["0"], ["99"], ["x"], []])
def test_a_mark_of_our_own_in_the_file(tmp_path: Path, entry: list[str]) -> None:
    model, path = good(), tmp_path / "m.onnx"
    forged = model.graph.initializer.add(name="v", data_type=TensorProto.FLOAT, dims=[600])
    forged.data_location = TensorProto.EXTERNAL
    for key, value in [("location", MARK), *(("offset", each) for each in entry)]:
        forged.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    assert "names no external file" in refused(path)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("kind", "why"), [(TensorProto.STRING, "is of text"), (77, "element type 77 is unknown")])
def test_element_types_that_have_no_raw_form(tmp_path: Path, inside: bool, kind: int, why: str) -> None:
    (tmp_path / "m.bin").write_bytes(bytes(4800))
    model, path = good(), tmp_path / "m.onnx"
    tensor = model.graph.initializer[0]
    tensor.data_type, tensor.raw_data = kind, bytes(4800)
    if not inside:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="m.bin")
    path.write_bytes(model.SerializeToString())
    assert why in refused(path)


def test_messages_inside_each_other_without_end(tmp_path: Path) -> None:
    content, path = b"\x0a\x02hi" * 600, tmp_path / "m.onnx"
    for _ in range(1000):
        for number in (6, 5, 1):  # the graph of an attribute of a node of a graph
            content = wire.length_tag(number) + wire.varint(len(content)) + content
    path.write_bytes(wire.length_tag(7) + wire.varint(len(content)) + content)
    assert "lie inside each other" in refused(path)


def test_a_model_in_memory_whose_weights_are_elsewhere() -> None:
    model = good()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="'w' lies in another file: load the model by its path"):
        Model.from_proto(model)


@pytest.mark.parametrize(("index", "side"), [(100, 4), (1, 1 << 24)])
def test_a_sparse_tensor_that_does_not_fit_its_shape(index: int, side: int) -> None:
    model = good()
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    places = numpy_helper.from_array(np.array([index]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [side, side]))
    loaded = Model.from_proto(model)
    with pytest.raises(ModelError, match="sparse tensor 'v' does not fit its shape"):
        loaded.array(loaded.constants()[1])
