import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onnxpress.models.torchfile import read_torch
from onnxpress.rewriter.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C


@dataclass
class Storage:
    """Stands for a storage: its key, and the name of its type."""

    key: str
    kind: str
    size: int


class Pickler(pickle.Pickler):
    """Writes storages as PyTorch does: a reference, the numbers come later."""

    def persistent_id(self, each: object) -> object:
        if isinstance(each, Storage):
            return ("storage", getattr(sys.modules["torch"], each.kind), each.key, "cpu", each.size, None)
        return None


class Tensor:
    """Pickled as PyTorch pickles a tensor."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just enough of PyTorch for pickle to write its names."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for kind in ("FloatStorage", "LongStorage", "ByteStorage"):
        setattr(modules["torch"], kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))

    def rebuild(*parts: object) -> None:
        raise AssertionError("only its name is used")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v2",
    )
    setattr(modules["torch._utils"], rebuild.__name__, rebuild)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def write(path: Path, state: object, storages: dict[str, np.ndarray], *, magic: int = MAGIC) -> Path:
    stream = io.BytesIO()
    for each in (magic, 1001, {"little_endian": True}, state, list(storages)):
        Pickler(stream, protocol=2).dump(each)
    for numbers in storages.values():
        stream.write(numbers.size.to_bytes(8, "little") + numbers.tobytes())
    path.write_bytes(stream.getvalue())
    return path


FLOATS, LONGS = np.arange(12, dtype=np.float32), np.array([7, -8], np.int64)
HELD = {"1": FLOATS, "2": LONGS}


def state(**tensors: Tensor) -> OrderedDict[str, Tensor]:
    return OrderedDict(tensors)


def floats(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    return Tensor(Storage("1", "FloatStorage", 12), offset, shape, strides)


def test_reads_every_tensor_in_its_type_and_shape(tmp_path: Path) -> None:
    longs = Tensor(Storage("2", "LongStorage", 2), 0, (2,), (1,))
    found = read_torch(write(tmp_path / "w", state(a=floats(2, (2, 3), (3, 1)), b=longs), HELD))
    np.testing.assert_array_equal(found["a"], FLOATS[2:8].reshape(2, 3), strict=True)
    np.testing.assert_array_equal(found["b"], LONGS, strict=True)
    assert not found["a"].flags.writeable


def test_reads_transposed_and_empty_tensors_and_scalars(tmp_path: Path) -> None:
    tensors = state(t=floats(0, (4, 3), (1, 4)), e=floats(0, (0, 3), (3, 1)), s=floats(11, (), ()))
    found = read_torch(write(tmp_path / "w", tensors, {"1": FLOATS}))
    np.testing.assert_array_equal(found["t"], FLOATS.reshape(3, 4).T, strict=True)
    assert found["e"].shape == (0, 3)
    assert found["s"] == 11


@pytest.mark.parametrize(
    "wrong", [floats(1, (4, 3), (3, 1)), floats(-1, (2,), (1,)), floats(0, (2,), (-1,)), floats(0, (2, 2), (1,))]
)
def test_refuses_a_tensor_outside_its_storage(tmp_path: Path, wrong: Tensor) -> None:
    with pytest.raises(ModelError, match=r"outside its storage|mean nothing"):
        read_torch(write(tmp_path / "w", state(a=wrong), {"1": FLOATS}))


def test_never_calls_what_a_file_names(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "touched",)

    with pytest.raises(ModelError, match="no part of a tensor"):
        read_torch(write(tmp_path / "w", OrderedDict(a=Harmful()), {}))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("length", [0, 5, 60, -1, -40])
def test_a_file_cut_short_is_one_clear_error(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "w", state(a=floats(0, (12,), (1,))), {"1": FLOATS})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"^[^\n]*fetch it again$|cut short"):
        read_torch(path)


def test_refuses_other_formats_and_types(tmp_path: Path) -> None:
    tensors = state(a=floats(0, (12,), (1,)))
    with pytest.raises(ModelError, match="another format"):
        read_torch(write(tmp_path / "w", tensors, {"1": FLOATS}, magic=5))
    odd = state(a=Tensor(Storage("1", "ByteStorage", 2), 0, (2,), (1,)))
    with pytest.raises(ModelError, match="ByteStorage"):
        read_torch(write(tmp_path / "w", odd, {"1": np.zeros(2, np.uint8)}))
