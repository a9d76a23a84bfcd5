"""The result as it travels: the same bytes again, smaller, and nothing where it cannot be written."""

import importlib.util
import json

import pytest

from onnxpress.calibration.session import Runner
from onnxpress.compression import compress
from onnxpress.decoding import decode_file
from onnxpress.inspection import Subject
from onnxpress.outcome import LimitsNotMet
from onnxpress.passes.encode.encode import Encode
from onnxpress.recipe import Limits
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.transport import pack

zstandard = pytest.importorskip("zstandard")


def unpacked(path):
    return zstandard.ZstdDecompressor().decompress(path.read_bytes())


def test_each_file_comes_back_byte_for_byte(model, tmp_path):
    path = tmp_path / "split.onnx"
    Model.load(model).save(path, external_data=True)
    packed = pack(path, "zst")
    names = sorted(each.name for each in tmp_path.glob("split*") if each.suffix != ".zst")
    assert sorted(each.name for each in packed.paths) == [f"{name}.zst" for name in names]
    assert len(names) == 2
    for each in packed.paths:
        assert unpacked(each) == each.with_suffix("").read_bytes()
    assert packed.bytes == sum(each.stat().st_size for each in packed.paths)
    assert set(packed.sha256) == {each.name for each in packed.paths}


def test_the_same_bytes_give_the_same_file(model):
    first = pack(model, "zst")
    content = first.paths[0].read_bytes()
    assert pack(model, "zst") == first
    assert first.paths[0].read_bytes() == content


def test_compress_writes_it_beside_the_result(model, samples, out, quick):
    result = compress(model, out, recipe=[Encode()], data=str(samples), transport="zst", bench_seconds=0.05)
    (path,) = result.transport.paths
    assert path == out.with_name(f"{out.name}.zst")
    assert unpacked(path) == out.read_bytes()
    assert sorted(each.name for each in out.parent.iterdir() if each.name.startswith(".")) == []


def test_its_size_is_in_summary_and_report(run, model, samples, out, tmp_path):
    told = tmp_path / "told.json"
    status, shown, said = run(
        "compress", model, "-o", out, "--recipe", "balanced", "--data", samples, "--transport", "zst", "--json", told
    )
    packed = out.with_name(f"{out.name}.zst")
    assert status == 0
    assert "bytes as zst" in shown
    assert str(packed.name) in (shown + said).replace("\n", "")
    account = json.loads(told.read_text())["compression"]["transport"]
    assert account["bytes"] == packed.stat().st_size
    assert list(account["sha256"]) == [packed.name]


def test_nothing_is_written_where_a_limit_is_not_met(model, samples, out, quick):
    with pytest.raises(LimitsNotMet) as caught:
        compress(model, out, recipe=[Encode()], data=str(samples), limits=Limits(max_bytes=1), transport="zst")
    assert caught.value.result.transport is None
    assert not out.with_name(f"{out.name}.zst").exists()


def test_without_the_option_there_is_none(model, samples, out, quick):
    assert compress(model, out, recipe=[Encode()], data=str(samples)).transport is None
    assert not out.with_name(f"{out.name}.zst").exists()


def test_refuses_an_unknown_format(refused, model, out):
    assert "transport must be zst, got 'zip'" in refused("compress", model, "-o", out, "--transport", "zip")


def test_says_how_to_install_what_is_missing(model, out, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "zstandard" else find(name))
    with pytest.raises(ConfigError) as caught:
        compress(model, out, transport="zst")
    assert str(caught.value) == 'transport zst needs zstandard: pip install "onnxpress[transport]"'


def test_never_writes_over_what_is_read(model, tmp_path):
    source = model.rename(tmp_path / "out.onnx.zst")
    with pytest.raises(ConfigError, match="is the input"):
        compress(source, tmp_path / "out.onnx", transport="zst")


@pytest.mark.parametrize("read", [Model.load, Runner, Subject.of, lambda path: decode_file(path, path.with_name("o"))])
def test_a_compressed_model_is_refused_with_what_to_do(model, read):
    packed = pack(model, "zst").paths[0]
    with pytest.raises(ModelError, match=f"decompress it first: zstd -d {packed}"):
        read(packed)
