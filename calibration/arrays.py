"""Stored arrays, read slice by slice."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import FeedError


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored array, as its header describes it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class Store(Protocol):
    """Named arrays that can be read in slices.

    Attributes:
        name: what errors call it.
        entries: what is stored, by name.
    """

    name: str
    entries: Mapping[str, Entry]

    def slices(self, name: str, sizes: Iterable[int]) -> Iterator[Array]:
        """Yield the next `size` slices along axis 0 of an array for each of `sizes`; they are read-only."""
        ...

    def read(self, name: str) -> Array:
        """The whole of one array."""
        ...


class Memory:
    """Arrays in memory, or mapped into it."""

    def __init__(self, arrays: Mapping[str, Array], *, name: str) -> None:
        """Wrap `arrays`, which errors call `name`."""
        self.name = name
        self._arrays = arrays
        self.entries: Mapping[str, Entry] = {
            key: Entry(array.shape, array.dtype, fortran=False) for key, array in arrays.items()
        }

    def slices(self, name: str, sizes: Iterable[int]) -> Iterator[Array]:
        """Yield the next `size` slices along axis 0 of an array for each of `sizes`."""
        return _slices(self._arrays[name], sizes)

    def read(self, name: str) -> Array:
        """The whole of one array."""
        return self._arrays[name]


class Npz:
    """An .npz file; no array is in memory unless it is stored in Fortran order.

    `np.load` reads a whole array at a time; the entries of a zip file can be read as streams, compressed or not.
    """

    def __init__(self, path: Path) -> None:
        """Read the headers of all arrays.

        Raises:
            FeedError: no file, no .npz file, or one that holds Python objects.
        """
        self.name = path.name
        self._path = path
        self.entries: Mapping[str, Entry] = self._read_entries()

    def slices(self, name: str, sizes: Iterable[int]) -> Iterator[Array]:
        """Yield the next `size` slices along axis 0 of an array for each of `sizes`; they are read-only."""
        entry = self.entries[name]
        if entry.fortran:
            yield from _slices(self._read_fortran(name, entry), sizes)
            return
        with self._reading(), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as stream:
            _read_header(stream)
            for size in sizes:
                yield self._next(stream, entry, (size, *entry.shape[1:]))

    def read(self, name: str) -> Array:
        """The whole of one array."""
        entry = self.entries[name]
        if entry.fortran:
            return self._read_fortran(name, entry)
        with self._reading(), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as stream:
            _read_header(stream)
            return self._next(stream, entry, entry.shape)

    def _read_fortran(self, name: str, entry: Entry) -> Array:
        with self._reading(), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as stream:
            _read_header(stream)
            return self._next(stream, entry, entry.shape[::-1]).T

    def _read_entries(self) -> dict[str, Entry]:
        with self._reading(), zipfile.ZipFile(self._path) as archive:
            entries = {}
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as stream:
                        entries[member.filename.removesuffix(".npy")] = self._entry(stream, member)
            return entries

    def _entry(self, stream: IO[bytes], member: zipfile.ZipInfo) -> Entry:
        entry = _read_header(stream)
        if entry.dtype.hasobject:
            raise FeedError(f"{self.name}: {member.filename} holds Python objects; save plain arrays")
        # A header may claim any size; memory is only taken for what is there.
        if math.prod(entry.shape) * entry.dtype.itemsize > member.file_size:
            raise FeedError(f"{self.name}: {member.filename} is cut short; write the file again")
        return entry

    def _next(self, stream: IO[bytes], entry: Entry, shape: tuple[int, ...]) -> Array:
        size = math.prod(shape) * entry.dtype.itemsize
        content = stream.read(size)
        if len(content) < size:
            raise FeedError(f"{self.name} is cut short; write the file again")
        return np.frombuffer(content, dtype=entry.dtype).reshape(shape)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FeedError(f"no file {self._path}; check the path") from error
        # RuntimeError: encrypted, or compressed in a way that zipfile does not know
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise FeedError(f"{self.name} cannot be read as .npz: {error}; write it with numpy.savez") from error


def read_npy(path: Path) -> Array:
    """Map an .npy file into memory.

    Raises:
        FeedError: no file, no .npy file, or one that holds Python objects.
    """
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise FeedError(f"no file {path}; check the path") from error
    except (OSError, EOFError, ValueError) as error:
        raise FeedError(f"{path.name} cannot be read as .npy: {error}; write it with numpy.save") from error
    return array


def _slices(array: Array, sizes: Iterable[int]) -> Iterator[Array]:
    start = 0
    for size in sizes:
        yield array[start : start + size]
        start += size


def _read_header(stream: IO[bytes]) -> Entry:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"array format {version} is for structured arrays")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return Entry(shape, dtype, fortran and len(shape) > 1)
