"""Stored arrays, read slice by slice."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from onnxpress.calibration.arrays import Memory, Npz, read_npy
from onnxpress.rewriter.errors import FeedError


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_are_those_of_the_array(tmp_path, save, order):
    array = np.asarray(np.arange(60.0).reshape(10, 3, 2), order=order)
    save(tmp_path / "a.npz", x=array, y=np.int64(7))
    npz = Npz(tmp_path / "a.npz")
    pieces = list(npz.slices("x", [4, 4, 2]))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(pieces), array)
    np.testing.assert_array_equal(npz.read("x"), array)
    assert npz.read("y") == 7
    assert npz.entries["y"].shape == ()


def test_a_slice_does_not_read_the_whole_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4000, 1000), np.float32))
    tracemalloc.start()
    for piece in Npz(tmp_path / "a.npz").slices("x", [10] * 400):
        assert piece.shape == (10, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the array is 16 MB


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FeedError, match=r"no file .*; check the path"):
        Npz(tmp_path / "a.npz")
    with pytest.raises(FeedError, match=r"no file .*; check the path"):
        read_npy(tmp_path / "a.npy")


def test_refuses_what_is_no_npz(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(FeedError, match=r"a\.npz cannot be read as \.npz"):
        Npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no header")
    with pytest.raises(FeedError, match=r"a\.npz cannot be read as \.npz"):
        Npz(path)


def test_refuses_python_objects(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(FeedError, match="holds Python objects; save plain arrays"):
        Npz(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(FeedError, match=r"cannot be read as \.npy"):
        read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(10**9, 1000), (-2, -3), (-1,)])
def test_refuses_a_header_that_lies(tmp_path, shape):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("x.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(8))
    with pytest.raises(FeedError, match=r"cut short|cannot be read"):
        Npz(tmp_path / "a.npz")


def test_arrays_in_memory_are_sliced_without_a_copy():
    array = np.arange(5)
    store = Memory({"x": array}, name="the arrays")
    pieces = list(store.slices("x", [3, 2]))
    assert pieces[0].base is array
    np.testing.assert_array_equal(pieces[1], [3, 4])
    assert store.read("x") is array


def test_an_encrypted_npz_is_one_error(tmp_path):
    path = tmp_path / "e.npz"
    np.savez(path, x=np.ones(4))
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\3\4") + 6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(FeedError, match="encrypted"):
        Npz(path)


def test_a_zip_file_called_npy_is_one_error(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones(4))
    path = (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(FeedError, match=r"x\.npy cannot be read as \.npy"):
        read_npy(path)
