"""The files of a result once more, in the form in which they travel: each with a `.zst` beside it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from onnxpress.artifact import Artifact, sha256_of
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.save import replacing

FORMATS = ("zst",)
LEVEL = 19
"""Of zstandard: the densest that any reader decodes with the memory it has by default."""


@dataclass(frozen=True, slots=True)
class Transport:
    """A result as it travels.

    Attributes:
        format: `zst`, one Zstandard frame a file, with its size and a checksum.
        paths: of the files.
        bytes: of all of them.
        sha256: by file name, in hexadecimal.
    """

    format: str
    paths: tuple[Path, ...]
    bytes: int
    sha256: dict[str, str]

    def moved(self, folder: Path) -> Transport:
        """The same in another folder of the file system, where it replaces what is called so.

        Raises:
            ModelError: the files cannot be moved.
        """
        try:
            return replace(self, paths=tuple(path.replace(folder / path.name) for path in self.paths))
        except OSError as error:
            raise ModelError(f"cannot write the {self.format} files to {folder}: {error.strerror}") from error


def check_transport(kind: str | None) -> None:
    """Refuse, before hours of work, what cannot be written.

    Raises:
        ConfigError: an unknown format, or what writes it is not installed.
    """
    if kind is None:
        return
    if kind not in FORMATS:
        raise ConfigError(f"transport must be {' or '.join(FORMATS)}, got {kind!r}")
    if importlib.util.find_spec("zstandard") is None:
        raise ConfigError('transport zst needs zstandard: pip install "onnxpress[transport]"')


def packed_path(path: Path, kind: str) -> Path:
    """Where a file goes in that form: beside it."""
    return path.with_name(f"{path.name}.{kind}")


def pack(path: Path, kind: str) -> Transport:
    """Write each file of a model once more, compressed, beside it; the same bytes give the same file.

    Args:
        path: of the model.
        kind: one of `FORMATS`.

    Raises:
        ConfigError: as `check_transport`.
        ModelError: a file cannot be written.
    """
    check_transport(kind)
    packed = [_pack(file, packed_path(file, kind)) for file in Artifact.of(path).files]
    sizes = sum(file.stat().st_size for file in packed)
    return Transport(kind, tuple(packed), sizes, {file.name: sha256_of(file) for file in packed})


def _pack(source: Path, target: Path) -> Path:
    """Compress a file, streaming; `target` appears whole or not at all."""
    import zstandard

    packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    try:
        with source.open("rb") as whole, replacing(target) as stream:
            packer.copy_stream(whole, stream, size=source.stat().st_size)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}") from error
    return target
