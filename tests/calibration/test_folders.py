"""Folders of files, a batch a file."""

import numpy as np
import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.folders import Folder
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.specs import InputSpec


def test_npy_files_in_order_of_their_names(tmp_path, x_spec):
    for name, value in (("b", 2), ("a", 1), ("c", 3)):
        np.save(tmp_path / f"{name}.npy", np.full((1, 4), value))
    folder = Folder(tmp_path, x_spec)
    assert [batch["x"][0, 0] for batch in folder] == [1, 2, 3]
    assert folder.count == 3


@pytest.mark.parametrize("first", ["n", None, 1])
def test_one_sample_without_a_batch_axis_gets_one(tmp_path, first):
    np.save(tmp_path / "a.npy", np.zeros(4))
    inputs = [InputSpec("x", np.dtype("float32"), (first, 4))]
    assert [batch["x"].shape for batch in Folder(tmp_path, inputs)] == [(1, 4)]


def test_a_fixed_batch_of_two_is_not_made_of_one_sample(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(4))
    inputs = [InputSpec("x", np.dtype("float32"), (2, 4))]
    assert [batch["x"].shape for batch in Folder(tmp_path, inputs)] == [(4,)]


@pytest.mark.parametrize(("labels", "cut"), [([7, 8], [[7], [8]]), ([5, 6, 7, 8, 9], [[5, 6, 7], [8, 9]])])
def test_labels_are_one_a_file_or_one_a_row(tmp_path, x_spec, labels, cut):
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    np.save(tmp_path / "b.npy", np.zeros((2, 4)))
    np.save(tmp_path / "labels.npy", np.array(labels))
    assert [list(batch["labels"]) for batch in Folder(tmp_path, x_spec)] == cut


@pytest.mark.parametrize("count", [1, 6])
def test_refuses_another_number_of_labels(tmp_path, x_spec, count):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 4)))
    np.save(tmp_path / "labels.npy", np.zeros(count))
    with pytest.raises(FeedError, match=r"labels.npy has .* one a file, or one a row"):
        list(Folder(tmp_path, x_spec))


def test_npz_files_hold_inputs_and_labels(tmp_path, x_spec):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4)), labels=[1, 2])
    np.savez(tmp_path / "b.npz", arr_0=np.zeros((1, 4)), labels=[3])
    assert [(batch["x"].shape, list(batch["labels"])) for batch in Folder(tmp_path, x_spec)] == [
        ((2, 4), [1, 2]),
        ((1, 4), [3]),
    ]


def test_refuses_npz_files_of_another_name(tmp_path, x_spec):
    (tmp_path / "z").mkdir()
    np.savez(tmp_path / "z" / "a.npz", z=np.zeros((2, 4)))
    with pytest.raises(FeedError, match=r"batch 0 of .* lacks 'x' and has 'z'.*: x float32 \[n, 4\]"):
        open_feed(tmp_path / "z", inputs=x_spec)


def test_refuses_a_folder_without_batches(tmp_path, x_spec):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FeedError, match=r"holds no .npy and no .npz files"):
        Folder(tmp_path, x_spec)


def test_refuses_both_kinds_of_files(tmp_path, x_spec):
    np.save(tmp_path / "a.npy", np.zeros((2, 4)))
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 4)))
    with pytest.raises(FeedError, match="keep one kind"):
        Folder(tmp_path, x_spec)


def test_refuses_npy_files_for_several_inputs(tmp_path, x_spec):
    np.save(tmp_path / "a.npy", np.zeros((2, 4)))
    with pytest.raises(FeedError, match=r"the model has the inputs x, y; write .npz files"):
        Folder(tmp_path, [*x_spec, InputSpec("y", np.dtype("float32"), ("n",))])


def test_one_label_without_an_axis(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1, 4), np.float32))
    np.save(tmp_path / "labels.npy", np.array(3))
    (batch,) = Folder(tmp_path, [InputSpec("x", np.dtype(np.float32), (None, 4))])
    np.testing.assert_array_equal(batch["labels"], [3])
