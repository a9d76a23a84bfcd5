"""Files that are either the old ones or the new ones, never something between."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import onnx

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.skeleton import Skeleton, is_marked, lift, sink, tensors
from onnxpress.rewriter.weights import Stored, Values

INLINE_LIMIT = (1 << 31) - (1 << 24)
"""Bytes of weights up to which a model may be one file; protobuf ends at 2 GB, the graph needs some room."""
_PAGE, _WORD = 4096, 64
_PAGED = 1 << 20


def save_skeleton(skeleton: Skeleton, path: Path, *, external: bool) -> int:
    """Write a model, its weights inside it or in one file beside it.

    The data file is named by its content, so the old model keeps the old data until the new model takes its place.

    Returns:
        Bytes written.

    Raises:
        ModelError: the path cannot be written.
    """
    sources = [values.source for values in skeleton.table if isinstance(values, Stored)]
    if not path.parent.is_dir():
        raise ModelError(f"{path.parent}: no such folder")
    external = external or sum(values.nbytes for values in skeleton.table) > INLINE_LIMIT
    stale = _data_files(path) - {s.path.resolve() for s in sources}
    fresh: Path | None = None
    try:
        size = 0
        if external:
            beside = set(path.parent.iterdir())
            file, size = _save_external(skeleton, path)
            fresh = None if file in beside else file
        with replacing(path) as stream:
            sink(skeleton, stream)
    except BaseException as error:
        if fresh is not None:
            fresh.unlink(missing_ok=True)  # no model names it
        if isinstance(error, OSError):
            raise ModelError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    for old in stale - _data_files(path):
        old.unlink(missing_ok=True)
    return size + path.stat().st_size


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of `path` when the block ends well, and vanishes when it does not."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _save_external(skeleton: Skeleton, path: Path) -> tuple[Path, int]:
    """Write the table to a file beside `path` and let the tensors point there; gives the file and its size."""
    marked = [tensor for tensor in tensors(skeleton.proto.graph) if is_marked(tensor)]
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            hashing = _Hashing(stream)
            spans = [_place(skeleton, tensor, hashing) for tensor in marked]
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        file = path.with_name(f"{path.stem}-{hashing.hash.hexdigest()[:12]}.data")
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    for tensor, (offset, length) in zip(marked, spans, strict=True):
        tensor.ClearField("external_data")
        for key, value in (("location", file.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    return file, size


def _place(skeleton: Skeleton, tensor: onnx.TensorProto, stream: _Hashing) -> tuple[int, int]:
    """Write one tensor on a boundary that lets a runtime map it."""
    values = skeleton.values(tensor)
    assert values is not None
    stream.write(bytes(-stream.tell() % boundary_of(values)))
    offset = stream.tell()
    values.write(stream)
    return offset, values.nbytes


def boundary_of(values: Values) -> int:
    """Bytes of which a multiple comes before a weight in a file of weights."""
    return _PAGE if values.nbytes >= _PAGED else _WORD


class _Hashing:
    """A stream that knows the hash of what went through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.hash = stream, hashlib.sha256()

    def write(self, chunk: bytes | memoryview) -> int:
        self.hash.update(chunk)
        return self.stream.write(chunk)

    def tell(self) -> int:
        return self.stream.tell()


def _data_files(path: Path) -> set[Path]:
    """Data files, named as ours are, that the model at `path` refers to."""
    if not path.is_file():
        return set()
    pattern = re.compile(re.escape(path.stem) + r"-[0-9a-f]{12}\.data")
    try:
        used = {values.source.path for values in lift(path).table if isinstance(values, Stored)}
    except ModelError:  # what stands there is no model of ours
        return set()
    return {file.resolve() for file in used if pattern.fullmatch(file.name)}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
