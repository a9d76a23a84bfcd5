"""The files of a model on disk: the model itself and its external data."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from onnxpress.calibration.plugins import is_reference
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import lift
from onnxpress.rewriter.weights import Stored

if sys.platform != "win32":
    import fcntl

CHUNK = 1 << 20

_ALIVE = ".alive"
"""A file that is locked while the run lives that made its folder: the system lifts the lock of a killed one."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model on disk.

    Attributes:
        path: the model file.
        companions: files with external data, in alphabetical order.
    """

    path: Path
    companions: tuple[Path, ...]

    @classmethod
    def of(cls, path: str | Path) -> Artifact:
        """Look which files belong to the model at `path`; its weights are not read.

        Raises:
            ModelError: no such file, or no readable model.
        """
        path = Path(path)
        stored = {v.source.path for v in lift(path).table if isinstance(v, Stored)}
        return cls(path, tuple(sorted(file for file in stored if not file.samefile(path))))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return (self.path, *self.companions)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, in hexadecimal, by file name."""
        return {file.name: sha256_of(file) for file in self.files}


def files_of(model: str | Path | Model) -> Collection[Path]:
    """The files of a model, or those that one in memory was loaded from.

    Raises:
        ModelError: no such file, or no readable model.
    """
    return model.files if isinstance(model, Model) else Artifact.of(model).files


def check_output(out: Path) -> None:
    """Refuse a place that cannot be written to, before hours of work.

    Raises:
        ConfigError: it is a folder, or its own folder is missing or read-only.
    """
    if out.is_dir():
        raise ConfigError(f"output {out} is a folder; name a file in it, such as {out / 'model.onnx'}")
    if not out.parent.is_dir():
        raise ConfigError(f"output {out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"output {out}: the folder cannot be written to; choose another")


def check_places(
    written: Mapping[str, Path | None],
    *,
    models: Sequence[str | Path | Model] = (),
    sources: Mapping[str, object] | None = None,
) -> None:
    """Refuse to write over what is read, or to write two things to one place.

    Args:
        written: places by the option that names them; None where it is not given.
        models: that are read; their external data counts.
        sources: whatever else is read, by the option that names it; what is no path on disk is left out.

    Raises:
        ConfigError: two are the same file.
        ModelError: no such model.
    """
    places = {option: path for option, path in written.items() if path is not None}
    for (first, path), (second, other) in combinations(places.items(), 2):
        if _same(path, other):
            raise ConfigError(f"{first} and {second} are both {path}; give each a name of its own")
    if not places:
        return
    read = [(f"the input {file.name}", file) for model in models for file in files_of(model)]
    read += [(f"what {option} reads", path) for option, each in (sources or {}).items() for path in _paths(each)]
    for option, path in places.items():
        for what, file in read:
            if _same(path, file) or (file.is_dir() and path.exists() and _within(path, file)):
                raise ConfigError(f"{option} {path} is {what}; choose another name, what is read is never overwritten")


def _paths(source: object) -> list[Path]:
    """Where a source lies on disk, as far as its name tells."""
    if not isinstance(source, str | Path):
        return []
    path = Path(source)
    if not path.exists() and isinstance(source, str) and is_reference(source):
        path = Path(*source.partition(":")[0].split(".")).with_suffix(".py")
    return [path] if path.exists() else []


def _same(first: Path, second: Path) -> bool:
    """Whether two paths are one file, there or not yet."""
    try:
        return first.samefile(second)
    except OSError:  # one is not there
        return first.resolve() == second.resolve()


def _within(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is not finished yet, gone when the block ends, however it ends.

    What runs left beside the same `out` that were killed without notice is removed first.
    """
    _sweep(out)
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
    except OSError as error:
        raise ModelError(f"cannot write beside {out}: {error.strerror}") from error
    with folder as name, _held(Path(name)):
        yield Path(name)


def _sweep(out: Path) -> None:
    """Remove the folders beside `out` whose run is no more; of those without a lock nobody knows."""
    ours = re.compile(rf"\.{re.escape(out.name)}\.\w{{8}}\.part")
    with suppress(OSError):  # what cannot be looked at stays
        for place in out.parent.iterdir():
            if ours.fullmatch(place.name) and place.is_dir() and not place.is_symlink() and _abandoned(place):
                shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Show that the run that works in a folder lives, where the file system has locks."""
    if sys.platform == "win32":
        yield
        return
    unlocked = folder / f"{_ALIVE}.new"
    with unlocked.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(folder / _ALIVE)  # seen only once it is locked
        except OSError:
            unlocked.unlink(missing_ok=True)
        yield


def _abandoned(folder: Path) -> bool:
    """Whether a lock is there that nobody holds."""
    if sys.platform == "win32":
        return False
    try:
        with (folder / _ALIVE).open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def deliver(made: Path, out: Path, *, keep: Collection[Path] = ()) -> Artifact:
    """Move a finished model to `out`, in the same file system; the model file, which names the data files, comes last.

    Data files of the model that stood there before go with it, where they are named as ours are.

    Args:
        made: the finished model.
        out: where it goes.
        keep: files of the input, which stay although the old model at `out` may share them.

    Raises:
        ModelError: the files cannot be moved.
    """
    new = Artifact.of(made)
    old = _stale(out, {file.name for file in new.companions})
    try:
        for file in new.companions:
            file.replace(out.with_name(file.name))
        made.replace(out)
        for file in old:
            if any(_same(file, each) for each in keep):
                continue
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"cannot write {out}: {error.strerror}") from error
    return Artifact.of(out)


def _stale(out: Path, kept: set[str]) -> list[Path]:
    """Data files that only the model at `out` uses."""
    if not out.is_file():
        return []
    try:
        found = Artifact.of(out).companions
    except ModelError:  # what stands there is no model
        return []
    return [file for file in found if file.name.startswith(f"{out.stem}-") and file.name not in kept]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
