"""Models that were compressed to travel, which nothing reads as they are."""

from __future__ import annotations

from pathlib import Path

from onnxpress.rewriter.errors import ModelError

_BEGINS = b"\x28\xb5\x2f\xfd"
"""How each Zstandard frame begins; no ONNX file does."""


def refuse_packed(path: Path) -> None:
    """Refuse a model that is a Zstandard file.

    Raises:
        ModelError: says how to decompress it.
    """
    try:
        with path.open("rb") as stream:
            packed = stream.read(len(_BEGINS)) == _BEGINS
    except OSError:  # whoever reads it next says what is wrong
        return
    if packed:
        raise ModelError(f"{path}: is compressed to travel; decompress it first: zstd -d {path}")
