"""The files of a model are found, moved together, and never left half done."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxpress.artifact import Artifact, check_output, check_places, deliver, scratch
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model


@pytest.fixture
def external(model, tmp_path):
    """The small model with a large weight beside it."""
    proto = onnx.load(model)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "spare"))
    proto.graph.node.append(onnx.helper.make_node("ReduceSum", ["spare"], ["total"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("total", onnx.TensorProto.FLOAT, [1, 1]))
    folder = tmp_path / "external"
    folder.mkdir()
    path = folder / "small.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path


def test_counts_and_hashes_every_file(external):
    found = Artifact.of(external)
    assert [each.name for each in found.files] == ["small.onnx", "weights.bin"]
    assert found.nbytes == sum(each.stat().st_size for each in external.parent.iterdir())
    assert found.hashes()["small.onnx"] == hashlib.sha256(external.read_bytes()).hexdigest()


def test_delivers_the_data_with_the_model(external, out):
    with scratch(out) as folder:
        Model.load(external).save(folder / out.name)
        delivered = deliver(folder / out.name, out)
    assert sorted(out.parent.iterdir()) == sorted(delivered.files)
    assert Model.load(out).weight_bytes() == Model.load(external).weight_bytes()


def test_old_data_goes_with_the_old_model(external, model, out):
    for source in (external, model):
        with scratch(out) as folder:
            Model.load(source).save(folder / out.name)
            deliver(folder / out.name, out)
    assert [each.name for each in out.parent.iterdir()] == ["result.onnx"]


def test_what_is_not_finished_goes(out):
    def interrupted():
        with scratch(out) as folder:
            (folder / "half").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(out.parent.iterdir())


def test_refuses_a_place_that_cannot_be_written(model, external, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        check_output(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        check_output(tmp_path / "none" / "x.onnx")


def test_what_is_read_is_never_overwritten(model, external, samples, tmp_path):
    link, feed = tmp_path / "link.onnx", tmp_path / "feed"
    link.symlink_to(model)
    feed.mkdir()
    (feed / "0.npz").write_bytes(samples.read_bytes())
    for place in (model, model.parent / ".." / "input" / model.name, link):
        with pytest.raises(ConfigError, match=r"--json .* is the input small.onnx; choose .* never overwritten"):
            check_places({"--json": place}, models=[model])
    with pytest.raises(ConfigError, match=r"is the input weights.bin"):
        check_places({"output": external.with_name("weights.bin")}, models=[model, external])
    for source, place in ((samples, samples), (str(samples), samples), (feed, feed / "0.npz")):
        with pytest.raises(ConfigError, match="is what --data reads"):
            check_places({"output": place}, sources={"--data": source})
    check_places({"output": feed / "new.onnx", "--json": None}, models=[model], sources={"--data": feed, "--test": []})


def test_a_module_that_gives_samples_is_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("feed.py").touch()
    with pytest.raises(ConfigError, match=r"feed.py is what --data reads"):
        check_places({"--json": Path("feed.py")}, sources={"--data": "feed:samples"})


def test_two_things_are_never_written_to_one_place(tmp_path):
    with pytest.raises(ConfigError, match="output and --json are both"):
        check_places({"output": tmp_path / "o", "--json": tmp_path / "x" / ".." / "o"})


def test_data_of_the_input_stays_when_its_old_model_is_replaced(model, out):
    Model.load(model).save(out, external_data=True)
    copy = out.with_name("copy.onnx")
    copy.write_bytes(out.read_bytes())
    with scratch(out) as folder:
        Model.load(model).save(folder / out.name)
        deliver(folder / out.name, out, keep=Artifact.of(copy).files)
    assert Model.load(copy).weight_bytes() == Model.load(model).weight_bytes()


def test_a_scratch_folder_that_cannot_be_made_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="cannot write beside"), scratch(tmp_path / "none" / "x.onnx"):
        pass


def killed(out):
    """What a run leaves that is killed without notice."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from onnxpress.artifact import scratch\n"
        "with scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_bytes(b'x')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-P", "-c", script, out], check=False).returncode == 9
    (left,) = out.parent.glob(f".{out.name}.*.part")
    assert (left / "half").is_file()
    return left


def test_what_a_killed_run_left_goes_with_the_next(out):
    left = killed(out)
    with scratch(out) as folder:
        assert [each.name for each in out.parent.iterdir()] == [folder.name]
        assert folder != left
    assert not list(out.parent.iterdir())


def test_of_a_run_that_lives_and_of_others_nothing_goes(out):
    left = killed(out)
    beside = out.with_name("result.onnx.other")
    other = killed(beside)
    mine = out.with_name(f".{out.name}.mine.part")
    mine.mkdir()
    unknown = out.with_name(f".{out.name}.abcd1234.part")  # of a run that could not lock it
    unknown.mkdir()
    with scratch(out) as first, scratch(out) as second:
        assert {*out.parent.iterdir()} == {first, second, other, mine, unknown}
    assert {*out.parent.iterdir()} == {other, mine, unknown}
    assert not left.exists()
