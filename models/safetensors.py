"""Read a safetensors file: eight bytes of header length, a JSON header, then the tensors one after the other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import ModelError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


def read_safetensors(path: Path) -> Mapping[str, Array]:
    """The tensors of `path` by name, as read-only views of one memory map.

    Raises:
        ModelError: the header is broken, a tensor lies outside the file, or its type has no NumPy counterpart.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if not 8 < start <= min(size, _HEADER_LIMIT):
            raise ModelError(f"{path.name} is no safetensors file, or was cut short; fetch it again")
        header = _parse(file.read(start - 8), path)
    stored = np.memmap(path, mode="r", dtype=np.uint8)
    return {name: _view(stored[start:], name, entry, path) for name, entry in header.items()}


def _parse(text: bytes, path: Path) -> dict[str, dict[str, object]]:
    try:
        header = json.loads(text)
        return {str(name): dict(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} has a broken safetensors header: {error}; fetch it again") from error


def _view(stored: Array, name: str, entry: dict[str, object], path: Path) -> Array:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if kind in _DTYPES:
            dtype = np.dtype(_DTYPES[kind])
            sizes = [n for n in shape if isinstance(n, int) and n >= 0]
            count = math.prod(sizes) if len(sizes) == len(shape) else -1
            if 0 <= begin <= end <= len(stored) and end - begin == count * dtype.itemsize:
                return stored[begin:end].view(dtype).reshape(sizes)
    raise ModelError(f"tensor {name} of {path.name} has a type, shape or place that cannot be read: {entry}")
