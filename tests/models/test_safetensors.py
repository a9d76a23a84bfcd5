import json
from pathlib import Path

import numpy as np
import pytest

from onnxpress.models.safetensors import read_safetensors
from onnxpress.rewriter.errors import ModelError


def write(path: Path, header: object, content: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_every_tensor_in_its_type_and_shape(tmp_path: Path) -> None:
    floats, numbers = np.arange(6, dtype=np.float32), np.array([7, -8], np.int64)
    header = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 3], 0, 24), "b": entry("I64", [2], 24, 40)}
    found = read_safetensors(write(tmp_path / "w", header, floats.tobytes() + numbers.tobytes()))
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], floats.reshape(2, 3), strict=True)
    np.testing.assert_array_equal(found["b"], numbers, strict=True)
    assert not found["a"].flags.writeable


@pytest.mark.parametrize(
    "wrong",
    [
        entry("F32", [2, 3], 0, 28),
        entry("F32", [2, 3], 8, 32),
        entry("F32", [2, 3], 24, 0),
        entry("F32", [-2, -3], 0, 24),
        entry("BF16", [12], 0, 24),
        {"dtype": "F32", "shape": [6]},
    ],
)
def test_refuses_a_tensor_that_is_not_in_the_file(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="tensor a of w"):
        read_safetensors(write(tmp_path / "w", {"a": wrong}, bytes(24)))


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 8, (99).to_bytes(8, "little") + b"{}"])
def test_refuses_a_file_that_was_cut_short(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ModelError, match="fetch it again"):
        read_safetensors(tmp_path / "w")


@pytest.mark.parametrize("header", [[1, 2], {"a": 3}, "text"])
def test_refuses_a_header_of_another_form(tmp_path: Path, header: object) -> None:
    with pytest.raises(ModelError, match="broken safetensors header"):
        read_safetensors(write(tmp_path / "w", header))
