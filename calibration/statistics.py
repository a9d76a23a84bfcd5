"""What observers saw, as a file, so that calibration can be reused, and done in parts."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, TypeVar

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers import Histogram, MinMax, MovingAverage, RangeObserver
from onnxpress.rewriter.errors import ConfigError, ModelError

# The rewriter is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    from onnxpress.rewriter.model import Model

FORMAT = 1

_HEADER = "header"

KINDS: Mapping[str, type[RangeObserver]] = {each.kind: each for each in (MinMax, MovingAverage, Histogram)}
"""What can be stored, by the name it has in the file."""

_WEIGHT = 16
"""Entries from which a weight marks a model: rewrites may make and drop smaller constants."""


_Kind = TypeVar("_Kind", bound=RangeObserver)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What observers saw of the tensors of one model.

    Attributes:
        fingerprint: of the model (`fingerprint`).
        batches: how many were seen.
        observers: by tensor.
        versions: of the software that made them, by name.
    """

    fingerprint: str
    batches: int
    observers: Mapping[str, RangeObserver]
    versions: Mapping[str, str]

    def check(self, model: Model, *, name: str) -> None:
        """Refuse another model.

        Args:
            model: that the statistics are to be used for.
            name: of the statistics, for the error.

        Raises:
            ConfigError: it is not the one that was observed.
        """
        if fingerprint(model) != self.fingerprint:
            raise ConfigError(
                f"{name} was made with another model, or with this one before its weights were changed; run "
                "onnxpress calibrate on the model as it is here"
            )

    def merged(self, other: Statistics) -> Statistics:
        """What both saw; neither is changed.

        Raises:
            ConfigError: they are of different models, or have different observers.
        """
        if self.fingerprint != other.fingerprint:
            raise ConfigError("statistics of different models cannot be merged; calibrate the same model on each part")
        found = {}
        for tensor in {**self.observers, **other.observers}:
            mine, others = self.observers.get(tensor), other.observers.get(tensor)
            if mine is None or others is None or type(mine) is not type(others):
                raise ConfigError(f"tensor {tensor!r} was not observed alike in both; calibrate with the same method")
            found[tensor] = _merged(type(mine), mine, others)
        return Statistics(self.fingerprint, self.batches + other.batches, found, self.versions)

    def save(self, path: Path) -> None:
        """Write an .npz file, which appears whole or not at all.

        Raises:
            ModelError: it cannot be written.
        """
        from onnxpress.rewriter.save import replacing

        header = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "batches": self.batches,
            "versions": dict(self.versions),
            "tensors": {name: observer.kind for name, observer in self.observers.items()},
        }
        arrays: dict[str, Array] = {_HEADER: np.array(json.dumps(header))}
        for position, observer in enumerate(self.observers.values()):
            arrays.update({f"{position}/{key}": value for key, value in observer.state().items()})
        try:
            with replacing(path) as stream:
                _write(stream, arrays)
        except OSError as error:
            raise ModelError(f"cannot write {path}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ConfigError: no such file, or another one.
        """
        try:
            if path.exists() and not zipfile.is_zipfile(path):
                raise ValueError("it is no whole .npz file")
            with np.load(path, allow_pickle=False) as stored:
                if _HEADER not in stored:
                    raise ValueError("it has no header")
                header = json.loads(str(stored[_HEADER]))
                if header["format"] != FORMAT:
                    raise ValueError(f"it has format {header['format']}, this onnxpress reads {FORMAT}")
                return cls._read(header, stored)
        except FileNotFoundError as error:
            raise ConfigError(f"no file {path}; write one with onnxpress calibrate") from error
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise _refused(path, error) from error
        except (ConfigError, zipfile.BadZipFile, zlib.error) as error:
            raise _refused(path, error) from error

    @classmethod
    def _read(cls, header: Mapping[str, object], stored: Mapping[str, Array]) -> Self:
        kinds, versions = header["tensors"], header["versions"]
        if not isinstance(kinds, dict) or not isinstance(versions, dict):
            raise TypeError("its header is damaged")
        states: list[dict[str, Array]] = [{} for _ in kinds]
        for key in stored:
            position, found, part = key.partition("/")
            if found:
                states[int(position)][part] = stored[key]
        observers = {
            str(name): KINDS[kind].from_state(state) for (name, kind), state in zip(kinds.items(), states, strict=True)
        }
        return cls(str(header["fingerprint"]), int(str(header["batches"])), observers, versions)


def fingerprint(model: Model) -> str:
    """What tells a model from others: its inputs, its outputs, and the content of its float weights, in hexadecimal.

    Names and constants that rewrites bring do not count, so a model of a raised opset is still the same; one whose
    weights were pruned, scaled or quantized is not, for its activations differ. All weights are read.
    """
    from onnxpress.rewriter.weights import values_of

    whole = hashlib.sha256()
    for spec in model.inputs:
        whole.update(f"{spec.name} {spec.dtype} {spec.shape}\n".encode())
    whole.update("\n".join(model.outputs).encode())
    weights = set()
    for constant in model.constants():
        values = values_of(constant)
        if _is_float(values.dtype) and int(np.prod(values.shape)) >= _WEIGHT:
            digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
            values.write(_Hashing(digest))
            weights.add(digest.digest())
    for each in sorted(weights):
        whole.update(each)
    return whole.hexdigest()


def versions() -> dict[str, str]:
    """The software that observes, by name."""
    from importlib.metadata import version

    import onnxruntime

    return {"onnxpress": version("onnxpress"), "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}


class _Hashing:
    """A stream that keeps nothing but the hash."""

    def __init__(self, digest: hashlib._Hash) -> None:
        self._digest = digest

    def write(self, chunk: bytes | memoryview, /) -> None:
        self._digest.update(chunk)


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or "float" in dtype.name


def _merged(kind: type[_Kind], one: RangeObserver, other: RangeObserver) -> _Kind:
    """A new observer that saw what both saw."""
    whole = kind.from_state(one.state())
    whole.merge(kind.from_state(other.state()))
    return whole


def _write(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """As `numpy.savez_compressed`, but any name will do, and the same arrays give the same bytes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)


def _refused(path: Path, error: Exception) -> ConfigError:
    text = str(error).partition("\n")[0]
    return ConfigError(f"{path} is no calibration file: {text}; write one with onnxpress calibrate")
