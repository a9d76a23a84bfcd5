from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.save import replacing

WEIGHT = np.arange(2000, dtype=np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2000]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(WEIGHT, "w")]
    )
    path = tmp_path / "in.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("external", [False, True])
def test_a_failed_save_leaves_the_old_files_whole(
    source: Path, tmp_path: Path, error: type[BaseException], external: bool
) -> None:
    model = Model.load(source)
    model.save(tmp_path / "out.onnx", external_data=external)
    before = files(tmp_path)

    def fail() -> np.ndarray:
        raise error

    model.replace_weight(model.constants()[0], fail)
    with pytest.raises(error):
        model.save(tmp_path / "out.onnx", external_data=external)
    assert files(tmp_path) == before


def test_never_overwrites_its_source_unless_asked(source: Path) -> None:
    model = Model.load(source)
    with pytest.raises(ModelError, match="is the input model: choose another"):
        model.save(source)
    model.replace_weight(model.constants()[0], WEIGHT + 1)
    model.save(source, overwrite_source=True)
    np.testing.assert_array_equal(Model.load(source).array(Model.load(source).constants()[0]), WEIGHT + 1)


def test_weights_can_still_be_read_after_their_file_was_replaced(source: Path) -> None:
    model = Model.load(source)
    model.clone().save(source, overwrite_source=True)
    source.unlink()
    np.testing.assert_array_equal(model.array(model.constants()[0]), WEIGHT)


def test_a_new_data_file_takes_the_place_of_the_old_one(source: Path, tmp_path: Path) -> None:
    model, out = Model.load(source), tmp_path / "out.onnx"
    model.save(out, external_data=True)
    first = set(tmp_path.glob("out-*.data"))
    model.replace_weight(model.constants()[0], WEIGHT * 2)
    model.save(out, external_data=True)
    second = set(tmp_path.glob("out-*.data"))
    assert len(first) == len(second) == 1
    assert first != second
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(out).graph.initializer[0]), WEIGHT * 2)


def test_returns_the_bytes_on_disk(source: Path, tmp_path: Path) -> None:
    size = Model.load(source).save(tmp_path / "out.onnx", external_data=True)
    assert size == sum(path.stat().st_size for path in tmp_path.glob("out*"))


def test_missing_folder_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        Model.load(source).save(tmp_path / "nowhere" / "out.onnx")


def test_replacing_keeps_usual_permissions(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as stream:
        stream.write(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("size", [2000, 4])
def test_never_overwrites_a_source_that_no_weight_is_read_from(tmp_path: Path, parse, size: int) -> None:
    path = tmp_path / "m.onnx"
    weight = np.ones(size, np.float32)
    onnx.save(parse(f"g (float[{size}] x) => (float[{size}] y) {{ y = Add(x, w) }}", w=weight).to_proto(), path)
    model = Model.load(path)
    model.replace_weight(model.constants()[0], weight * 2)
    with pytest.raises(ModelError, match="is the input model: choose another"):
        model.clone().save(path)


def test_a_save_that_fails_at_the_model_file_leaves_no_data_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(tmp_path)
    monkeypatch.setattr("onnxpress.rewriter.save.sink", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(ModelError, match="disk full"):
        Model.load(source).save(tmp_path / "out.onnx", external_data=True)
    assert files(tmp_path) == before
