"""A folder of .npy or .npz files, one batch a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnxpress.calibration.arrays import Npz, read_npy
from onnxpress.calibration.batches import LABELS, Array, rename_lone
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.specs import InputSpec


class Folder:
    """Batches from the files of a folder, sorted by name, read one at a time.

    .npz files hold one array for each input and may hold `labels`. .npy files serve a model with one input; one sample
    without a batch axis gets that axis where the model allows a batch of one. Their labels are in `labels.npy`: one a
    file, or one a row.
    """

    def __init__(self, path: Path, inputs: Sequence[InputSpec]) -> None:
        """List the files.

        Raises:
            FeedError: no such files, both kinds, or .npy files for a model of several inputs.
        """
        self._inputs = inputs
        plain = [file for file in sorted(path.glob("*.npy")) if file.stem != LABELS]
        zipped = sorted(path.glob("*.npz"))
        if plain and zipped:
            raise FeedError(f"{path} holds .npy and .npz files; keep one kind, a batch a file")
        if not plain and not zipped:
            raise FeedError(f"{path} holds no .npy and no .npz files; write one a batch with numpy.save or savez")
        if plain and len(inputs) != 1:
            names = ", ".join(spec.name for spec in inputs)
            raise FeedError(f"{path} holds .npy files, the model has the inputs {names}; write .npz files")
        self.files: tuple[Path, ...] = tuple(plain or zipped)
        labels = path / f"{LABELS}.npy"
        self._labels = np.atleast_1d(read_npy(labels)) if plain and labels.exists() else None

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self.files)

    def __iter__(self) -> Iterator[object]:
        begin = 0
        for position, file in enumerate(self.files):
            if file.suffix == ".npz":
                yield _read_npz(file, self._inputs)
                continue
            array = _with_batch_axis(read_npy(file), self._inputs[0])
            rows = len(array) if array.ndim else 1
            yield {self._inputs[0].name: array} | self._labels_of(position, begin, rows)
            begin += rows
        if self._labels is not None and len(self._labels) not in (len(self.files), begin):
            raise FeedError(
                f"labels.npy has {len(self._labels)} labels for {begin} rows; give one a file, or one a row"
            )

    def _labels_of(self, position: int, begin: int, rows: int) -> dict[str, Array]:
        if self._labels is None:
            return {}
        if len(self._labels) == len(self.files):
            return {LABELS: self._labels[position : position + 1]}
        if begin + rows > len(self._labels):
            raise FeedError(f"labels.npy has {len(self._labels)} labels, too few; give one a file, or one a row")
        return {LABELS: self._labels[begin : begin + rows]}


def _read_npz(path: Path, inputs: Sequence[InputSpec]) -> dict[str, Array]:
    npz = Npz(path)
    return {name: npz.read(stored) for stored, name in rename_lone(list(npz.entries), inputs).items()}


def _with_batch_axis(array: Array, spec: InputSpec) -> Array:
    if spec.shape is None or array.ndim != len(spec.shape) - 1:
        return array
    first = spec.shape[0]
    return array if isinstance(first, int) and first != 1 else array[np.newaxis]
