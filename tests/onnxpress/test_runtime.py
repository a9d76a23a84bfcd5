"""Distributions of ONNX Runtime, faked as folders: what is found, and what is refused with the way to mend it."""

import base64
import hashlib
import sys
from pathlib import Path

import onnxruntime
import pytest

from onnxpress.rewriter.errors import ProviderError
from onnxpress.runtime import OLDEST, check_runtime, find_claim

INIT = "onnxruntime/__init__.py"
MARK = "onnxruntime/capi/build_and_package_info.py"


def put(folder: Path, name: str, version: str = "1.32.0") -> None:
    """Install a fake wheel as pip does: files over whatever lies there, and a record of them."""
    contents = {INIT: f"__version__ = '{version}'\n", MARK: f"package_name = '{name}'\n"}
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    record = [f"{place.name}/METADATA,,", "onnxruntime/capi/__pycache__/_ld_preload.cpython-311.pyc,,"]
    for path, text in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "RECORD").write_text("\n".join(record) + "\n")


def forget(folder: Path, name: str) -> None:
    """Remove what pip knows of a distribution, and leave its files."""
    for place in folder.glob(f"{name.replace('-', '_')}-[0-9]*.dist-info"):
        for file in place.iterdir():
            file.unlink()
        place.rmdir()


def test_finds_the_installed_runtime():
    runtime = check_runtime()
    assert runtime.version == onnxruntime.__version__
    assert runtime.distribution is None or runtime.distribution.startswith("onnxruntime")
    assert "CPUExecutionProvider" in runtime.providers


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "ort-nightly"])
def test_accepts_any_whole_variant(tmp_path, name):
    put(tmp_path, name)
    claim = find_claim([str(tmp_path)])
    assert claim is not None
    assert (claim.name, claim.version, claim.folder) == (name, "1.32.0", tmp_path)


def test_takes_the_first_on_the_path(tmp_path):
    for folder, name in (("first", "onnxruntime-gpu"), ("second", "onnxruntime")):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, name)
    claim = find_claim([str(tmp_path / "first"), str(tmp_path / "second")])
    assert claim is not None
    assert claim.name == "onnxruntime-gpu"


def test_accepts_a_build_that_pip_does_not_know(tmp_path):
    put(tmp_path, "onnxruntime")
    forget(tmp_path, "onnxruntime")
    assert find_claim([str(tmp_path)]) is None


def test_ignores_packages_that_only_sound_alike(tmp_path):
    put(tmp_path, "onnxruntime")
    place = tmp_path / "onnxruntime_extensions-0.14.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-extensions\nVersion: 0.14.0\n")
    (place / "RECORD").write_text("onnxruntime_extensions/__init__.py,,\n")
    claim = find_claim([str(tmp_path)])
    assert claim is not None
    assert claim.name == "onnxruntime"


def test_tells_how_to_install_where_there_is_none(tmp_path):
    with pytest.raises(ProviderError, match=r'pip install "onnxpress\[cpu\]", or "onnxpress\[gpu\]"'):
        find_claim([str(tmp_path)])


def test_takes_a_folder_left_by_an_uninstall_for_none(tmp_path):
    put(tmp_path, "onnxruntime")
    forget(tmp_path, "onnxruntime")
    (tmp_path / INIT).unlink()
    with pytest.raises(ProviderError, match="no ONNX Runtime is installed"):
        find_claim([str(tmp_path)])


@pytest.mark.parametrize("order", [("onnxruntime", "onnxruntime-gpu"), ("onnxruntime-gpu", "onnxruntime")])
def test_refuses_two_variants_and_keeps_the_special_one(tmp_path, order):
    for name in order:
        put(tmp_path, name)
    mend = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall --no-deps onnxruntime-gpu"
    with pytest.raises(ProviderError, match=mend + "$"):
        find_claim([str(tmp_path)])


def test_refuses_files_of_a_variant_that_pip_has_forgotten(tmp_path):
    put(tmp_path, "onnxruntime-gpu")
    put(tmp_path, "onnxruntime")
    forget(tmp_path, "onnxruntime")
    with pytest.raises(ProviderError, match=r"build_and_package_info.py of onnxruntime-gpu 1\.32\.0 was overwritten"):
        find_claim([str(tmp_path)])


def test_refuses_what_the_uninstall_of_another_variant_left(tmp_path):
    put(tmp_path, "onnxruntime-gpu")
    (tmp_path / INIT).unlink()
    (tmp_path / MARK).unlink()
    with pytest.raises(ProviderError, match=r"onnxruntime/__init__.py of onnxruntime-gpu 1\.32\.0 was overwritten"):
        find_claim([str(tmp_path)])


def test_refuses_a_runtime_below_the_tested_bound(tmp_path):
    put(tmp_path, "onnxruntime-gpu", "1.9.0")
    oldest = ".".join(map(str, OLDEST))
    with pytest.raises(ProviderError, match=rf'1\.9\.0 is too old.*pip install --upgrade "onnxruntime-gpu>={oldest}"'):
        find_claim([str(tmp_path)])


def test_tells_of_a_runtime_that_does_not_load(tmp_path, monkeypatch):
    put(tmp_path, "onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"onnxruntime does not load \(.*\); mend it with: pip uninstall") as caught:
        check_runtime()
    assert "\n" not in str(caught.value)
