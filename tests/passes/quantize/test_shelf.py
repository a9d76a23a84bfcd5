import tempfile

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.shelf import Shelf


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


ARRAYS = {
    "matrix": np.arange(-60, 60, dtype=np.int8).reshape(10, 12),
    "transposed": np.arange(24, dtype=np.uint8).reshape(4, 6).T,
    "scalar": np.array(-3, np.int8),
    "empty": np.zeros((0, 5), np.int8),
    "wide": np.linspace(-1, 1, 7, dtype=np.float32),  # not aligned, behind an odd number of bytes
    "words": np.array([[-40_000, 40_000]], np.int32),
}


def test_gives_back_what_was_put_whenever_it_is_read(folder):
    shelf, found = Shelf(), {}
    for name, array in ARRAYS.items():
        found[name] = shelf.put(array)
        np.testing.assert_array_equal(found[name].load(), array)
    for name, array in ARRAYS.items():
        back = found[name].load()
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


def test_leaves_no_file_behind(folder):
    kept = Shelf().put(ARRAYS["matrix"])
    assert list(folder.iterdir()) == []
    np.testing.assert_array_equal(kept.load(), ARRAYS["matrix"])  # although the shelf is gone


def test_what_is_read_cannot_be_written_into(folder):
    with pytest.raises(ValueError, match="read-only"):
        Shelf().put(ARRAYS["matrix"]).load()[0, 0] = 1


def test_a_model_is_saved_with_arrays_of_a_shelf(folder, build, run, random):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((4, 3), np.float32)}, x=("n", 4))
    weight, x = random.standard_normal((4, 3), np.float32), random.standard_normal((2, 4), np.float32)
    model.replace_weight(model.graph.nodes[0].inputs[1], Shelf().put(weight))
    np.testing.assert_allclose(run(model, x)[0], x @ weight, rtol=1e-5, atol=1e-6)  # sums of 4 products
