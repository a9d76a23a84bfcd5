"""Read the tensors of a file that PyTorch saved before version 1.6, without PyTorch and without running what is in it.

Such a file is five pickles (a magic number, the version of the format, a description of the machine, the tensors
without their numbers, the keys of the storages), then one storage after the other: the number of elements in eight
bytes, and the elements. Unpickling may call whatever a file names; here it may call nothing but what rebuilds tensors.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import ModelError

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_PICKLE_LIMIT = 16 << 20  # bytes before the first storage; names and shapes of thousands of tensors fit
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers that tensors lie in, somewhere behind the pickles."""

    key: str
    dtype: np.dtype[np.generic]
    size: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Which numbers of a storage a tensor is."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> Mapping[str, Array]:
    """The tensors of the state dict in `path` by name, as read-only views of one memory map.

    Raises:
        ModelError: the file is of another format, cut short, or holds anything but tensors of numbers.
    """
    if path.stat().st_size == 0:
        raise ModelError(f"{path.name} is empty; fetch it again")
    stored = np.memmap(path, mode="r", dtype=np.uint8)
    stream = io.BytesIO(stored[:_PICKLE_LIMIT].tobytes())
    try:
        magic, version, _ = (_Restricted(stream).load() for _ in range(3))
        if (magic, version) != (_MAGIC, _VERSION):
            raise ModelError(f"{path.name} is of another format than PyTorch had before version 1.6; save it again so")
        tensors, keys = _Restricted(stream).load(), _Restricted(stream).load()
        places = _places(stored, stream.tell(), keys, {each.storage.key: each.storage for each in tensors.values()})
        return {str(name): _view(places, tensor) for name, tensor in tensors.items()}
    except ModelError:
        raise
    except Exception as error:  # a broken pickle raises whatever its instructions run into
        raise ModelError(f"{path.name} is no file of PyTorch's, or is broken: {error}; fetch it again") from error


class _Restricted(pickle.Unpickler):
    """An unpickler that knows nothing but tensors and containers."""

    def find_class(self, module: str, name: str) -> Callable[..., object] | str:
        """What a pickle may name."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a tensor")

    def persistent_load(self, reference: object) -> _Storage:
        """The storage that a tensor refers to."""
        match reference:
            case ("storage", str(kind), str(key), _, int(size), None) if kind in _DTYPES and size >= 0:
                return _Storage(key, np.dtype(_DTYPES[kind]), size)
        raise pickle.UnpicklingError(f"it refers to {reference!r:.80}, which is no storage")


def _rebuild(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _places(stored: Array, start: int, keys: list[str], storages: Mapping[str, _Storage]) -> dict[str, Array]:
    """Each storage as an array."""
    places = {}
    for key in keys:
        storage = storages[key]
        size, begin = int.from_bytes(stored[start : start + 8].tobytes(), "little"), start + 8
        start = begin + size * storage.dtype.itemsize
        if size != storage.size or start > len(stored):
            raise ModelError(f"storage {key} has {size} elements instead of {storage.size}, or was cut short")
        places[key] = stored[begin:start].view(storage.dtype)
    return places


def _view(places: Mapping[str, Array], tensor: _Tensor) -> Array:
    numbers, width = places[tensor.storage.key], tensor.storage.dtype.itemsize
    counts = all(isinstance(each, int) and each >= 0 for each in (tensor.offset, *tensor.shape, *tensor.strides))
    if not counts or len(tensor.shape) != len(tensor.strides):
        raise ModelError(f"a tensor has shape {tensor.shape} and strides {tensor.strides}, which mean nothing")
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, tensor.storage.dtype)
    if tensor.offset + reach >= len(numbers):
        raise ModelError(f"a tensor of shape {tensor.shape} lies outside its storage of {len(numbers)} numbers")
    steps = [stride * width for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
