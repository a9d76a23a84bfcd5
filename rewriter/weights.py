"""The values of constants: on disk until they are read, in memory, or computed only when they are written.

Values
├── Stored      a span of a file, mapped afresh by every read and unmapped with the array
├── Inline      a small or oddly encoded TensorProto, kept as it came
├── SparseForm  a SparseTensorProto, kept as it came
├── Dense       an array
├── Produced    a function that computes the array each time it is read
└── Streamed    a function that computes it piece by piece, so that even one huge weight is never in memory whole
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxpress.rewriter.errors import ModelError

LARGE = 1024
"""Bytes from which values live outside of messages."""

Array = NDArray[Any]

CHUNK = 1 << 24
"""Bytes copied at a time while writing."""


def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """The ONNX element type of a NumPy or ml_dtypes dtype."""
    if dtype.kind in "OUS":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))


def numpy_dtype(element_type: int) -> np.dtype[Any]:
    """The NumPy (or ml_dtypes) dtype of an ONNX element type.

    Raises:
        ModelError: the installed onnx knows no such element type.
    """
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    except KeyError as error:
        raise ModelError(
            f"element type {element_type} is unknown to onnx {onnx.__version__}: install a newer onnx"
        ) from error


def element_bits(element_type: int) -> int:
    """Bits of one stored element (4-bit and 2-bit types are packed)."""
    name = onnx.TensorProto.DataType.Name(element_type)
    for suffix, bits in (("INT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2)):
        if name.endswith(suffix):
            return bits
    return numpy_dtype(element_type).itemsize * 8


class Sink(Protocol):
    """What bytes can be written to."""

    def write(self, chunk: bytes | memoryview, /) -> object:
        """Take all of the bytes."""


class Values(LazyValues):  # type: ignore[misc]  # graphsurgeon has no types
    """Values of a constant, with shape and dtype known without reading them.

    Attributes:
        shape: sizes, as ints.
        dtype: of the array that `load` gives.
        element_type: ONNX element type.
        nbytes: as stored in a file, dense.
    """

    def __init__(self, shape: tuple[int, ...], element_type: int) -> None:
        self.shape = shape
        self.element_type = element_type
        self.dtype = numpy_dtype(element_type)
        self.nbytes = (int(np.prod(shape, dtype=object)) * element_bits(element_type) + 7) // 8

    @property
    def stored_bytes(self) -> int:
        """Bytes in a file, of the form they have now; `nbytes` of all but sparse ones."""
        return self.nbytes

    @abstractmethod
    def load(self) -> Array:
        """The values as an array the caller must not write into."""

    def write(self, stream: Sink) -> None:
        """Write the stored bytes (little-endian, packed)."""
        write_array(self.load(), stream)


class Stored(Values):
    """A span of a file that stays open, so that the file may be renamed away meanwhile."""

    def __init__(self, shape: tuple[int, ...], element_type: int, source: Source, offset: int) -> None:
        super().__init__(shape, element_type)
        self.source, self.offset = source, offset

    def load(self) -> Array:
        """Map the span read-only; packed types are unpacked in memory."""
        if not self.nbytes:
            return np.zeros(self.shape, self.dtype)
        if element_bits(self.element_type) < 8:
            raw = self.source.map(np.dtype(np.uint8), self.offset, (self.nbytes,))
            packed = onnx.TensorProto(data_type=self.element_type, dims=self.shape, raw_data=raw.tobytes())
            return numpy_helper.to_array(packed)
        return self.source.map(self.dtype, self.offset, self.shape)

    def write(self, stream: Sink) -> None:
        """Copy the span in chunks."""
        self.source.copy(self.offset, self.nbytes, stream)


class Inline(Values):
    """A TensorProto kept as it came: small, or with typed fields instead of raw bytes."""

    def __init__(self, tensor: onnx.TensorProto) -> None:
        super().__init__(tuple(tensor.dims), tensor.data_type)
        self.tensor = tensor

    def load(self) -> Array:
        """Decode the message."""
        try:
            return numpy_helper.to_array(self.tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(f"the content of tensor '{self.tensor.name}' does not fit its shape: {error}") from error


class SparseForm(Values):
    """A SparseTensorProto kept as it came (COO, linear or per-axis indices)."""

    def __init__(self, sparse: onnx.SparseTensorProto) -> None:
        super().__init__(tuple(sparse.dims), sparse.values.data_type)
        self.tensor = sparse

    @property
    def stored_bytes(self) -> int:
        """Bytes of the message."""
        return int(self.tensor.ByteSize())

    def load(self) -> Array:
        """Scatter the values into a dense array.

        Raises:
            ModelError: an index lies outside of the shape, or memory does not hold that.
        """
        try:
            dense = np.zeros(self.shape, self.dtype)
            indices, values = numpy_helper.to_array(self.tensor.indices), numpy_helper.to_array(self.tensor.values)
            if indices.ndim == 1:
                dense.reshape(-1)[indices] = values
            else:
                dense[tuple(indices.T)] = values
        except (ValueError, TypeError, IndexError, MemoryError) as error:
            raise ModelError(f"sparse tensor '{self.tensor.values.name}' does not fit its shape: {error}") from error
        return dense


class Dense(Values):
    """An array in memory."""

    def __init__(self, array: Array) -> None:
        super().__init__(array.shape, onnx_dtype(array.dtype))
        self.array = array

    def load(self) -> Array:
        """The array itself."""
        return self.array


class Produced(Values):
    """Values computed each time they are read, so that a large model is never in memory whole."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], make: Callable[[], Array]) -> None:
        super().__init__(shape, onnx_dtype(dtype))
        self.make = make

    def load(self) -> Array:
        """Compute the array.

        Raises:
            ValueError: the function gave another shape or dtype than promised.
        """
        array = self.make()
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(f"promised {self.dtype}{self.shape}, computed {array.dtype}{array.shape}")
        return array


class Streamed(Values):
    """Values computed piece by piece, in C order, each time they are read."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: Callable[[], Iterator[Array]]) -> None:
        super().__init__(shape, onnx_dtype(dtype))
        self.pieces = pieces

    def load(self) -> Array:
        """Compute the whole array.

        Raises:
            ValueError: the pieces do not fill it.
        """
        array = np.empty(self.shape, self.dtype)
        flat, end = array.reshape(-1), 0
        for piece in self.pieces():
            flat[end : end + piece.size] = piece
            end += piece.size
        if end != flat.size:
            raise ValueError(f"promised {flat.size} elements, computed {end}")
        return array

    def write(self, stream: Sink) -> None:
        """Compute and write one piece after the other."""
        for piece in self.pieces():
            write_array(piece, stream)


class Source:
    """A file that weights are read from, kept open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.stream = path.open("rb")
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        self.size = os.fstat(self.stream.fileno()).st_size

    def map(self, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> Array:
        """Map a span read-only; it is unmapped when the array goes."""
        wanted = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if os.fstat(self.stream.fileno()).st_size < wanted:  # reading past the end would kill the process
            raise ModelError(f"{self.path} became shorter while it was in use")
        return np.memmap(self.stream, dtype=dtype, mode="r", offset=offset, shape=shape or (1,)).reshape(shape)

    def copy(self, offset: int, length: int, stream: Sink) -> None:
        """Copy a span into `stream`, a chunk at a time."""
        for start in range(offset, offset + length, CHUNK):
            chunk = os.pread(self.stream.fileno(), min(CHUNK, offset + length - start), start)
            if not chunk:
                raise ModelError(f"{self.path} became shorter while it was in use")
            stream.write(chunk)

    def __del__(self) -> None:
        if stream := getattr(self, "stream", None):
            stream.close()


def values_of(constant: gs.Constant) -> Values:
    """The values of a constant, wrapped where a plain array was given."""
    values = constant._values
    return values if isinstance(values, Values) else Dense(np.asarray(values))


def read(constant: gs.Constant) -> Array:
    """The array of a constant, read-only; mapped from disk where it is stored there."""
    array = values_of(constant).load().view()
    array.flags.writeable = False
    return array


def write_array(array: Array, stream: Sink) -> None:
    """Write an array as ONNX stores it: C order, little-endian, 4-bit types packed."""
    if array.dtype.kind == "O":
        raise ValueError("strings have no raw form")
    if element_bits(onnx_dtype(array.dtype)) < 8:
        stream.write(numpy_helper.from_array(np.ascontiguousarray(array)).raw_data)
        return
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, CHUNK):
        stream.write(flat[start : start + CHUNK].data)
