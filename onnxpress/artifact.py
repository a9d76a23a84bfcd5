"""The files of a model on disk: the model itself and its external data."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.skeleton import lift
from onnxpress.rewriter.weights import Stored

CHUNK = 1 << 20


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
        return {file.name: _sha256(file) for file in self.files}


def check_output(out: Path, source: Path | None) -> None:
    """Refuse a place that cannot be written to, before hours of work.

    Raises:
        ConfigError: it is a folder, its own folder is missing or read-only, or a file of the input lies there.
    """
    if out.is_dir():
        raise ConfigError(f"output {out} is a folder; name a file in it, such as {out / 'model.onnx'}")
    if not out.parent.is_dir():
        raise ConfigError(f"output {out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"output {out}: the folder cannot be written to; choose another")
    if source is not None and out.exists() and any(out.samefile(file) for file in Artifact.of(source).files):
        raise ConfigError(f"output {out} is the input model; choose another name, the input is never overwritten")


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is not finished yet, gone when the block ends, however it ends."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
    except OSError as error:
        raise ModelError(f"cannot write beside {out}: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def deliver(made: Path, out: Path) -> Artifact:
    """Move a finished model to `out`, in the same file system; the model file, which names the data files, comes last.

    Data files of the model that stood there before go with it, where they are named as ours are.

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


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
