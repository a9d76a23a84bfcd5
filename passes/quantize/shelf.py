"""Arrays that wait on disk until a model is saved."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from onnxpress.rewriter.weights import Array, Source, Stored, Values, onnx_dtype


class Shelf:
    """A temporary file that arrays are put into; each is mapped when it is read.

    The file goes with the last of them. It is for what cannot be computed anew at every reading.
    """

    def __init__(self) -> None:
        """Open the file."""
        number, path = tempfile.mkstemp(prefix="onnxpress-")
        self._stream = os.fdopen(number, "wb")
        self._source = Source(Path(path))  # which keeps it open
        Path(path).unlink()

    def put(self, array: Array) -> Values:
        """Write an array, of a dtype of whole bytes; gives the values that stand for it."""
        offset = self._stream.tell()
        self._stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._stream.flush()
        return Stored(array.shape, onnx_dtype(array.dtype), self._source, offset)
