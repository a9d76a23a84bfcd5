"""A model as a message for ONNX Runtime, with as few copies of its weights as can be."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onnxpress.calibration.cut import read_model

# onnx, and the rewriter that needs it, are imported where they are used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

    from onnxpress.rewriter.model import Model
    from onnxpress.rewriter.skeleton import Skeleton
    from onnxpress.rewriter.weights import Values

INLINE = 64 * 2**20
"""Bytes of weights that go into the message; more are written to a file, unless they are in one already."""

_ALIGNED = 16
"""ONNX Runtime maps weights where they lie, so they must lie where a processor reads them."""


@contextmanager
def loaded(model: Path | bytes | Model) -> Iterator[tuple[onnx.ModelProto, Path | None]]:
    """The model as a message, and the folder of its external data; what had to be written is removed at the end.

    Weights of a model in memory that it was loaded with stay in their file, if that is one of external data.

    Args:
        model: a file, the bytes of one without external data, or a model in memory.

    Raises:
        ModelError: no such file, no ONNX model, or no room to write.
    """
    if isinstance(model, bytes):
        yield read_model(model), None
    elif isinstance(model, Path):
        yield read_model(model), model.parent
    else:
        with placed(model.skeleton()) as found:
            yield found


@contextmanager
def placed(skeleton: Skeleton) -> Iterator[tuple[onnx.ModelProto, Path | None]]:
    """The message of a skeleton, and the folder of its external data; what had to be written is removed at the end.

    Args:
        skeleton: whose message is filled in; of its table, only what the message marks is looked at.

    Raises:
        ModelError: no room to write.
    """
    from onnxpress.rewriter.save import save_skeleton

    filling = _plan(skeleton)
    if filling is not None:
        filling.write()
        yield skeleton.proto, filling.folder
        return
    with TemporaryDirectory(prefix="onnxpress-") as made:
        path = Path(made) / "model.onnx"
        save_skeleton(skeleton, path, external=True)
        yield read_model(path), path.parent


@dataclass(frozen=True, slots=True)
class _Filling:
    """Where the weights of a message go.

    Attributes:
        folder: of those that stay in their file; None where none does.
        outside: they, with file, offset and bytes.
        inside: those that go into the message.
    """

    folder: Path | None
    outside: Sequence[tuple[onnx.TensorProto, Path, int, int]]
    inside: Sequence[tuple[onnx.TensorProto, Values]]

    def write(self) -> None:
        """Change the message so."""
        for tensor, path, offset, length in self.outside:
            tensor.ClearField("external_data")
            for key, value in (("location", path.name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
        for tensor, values in self.inside:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            content = io.BytesIO()
            values.write(content)
            tensor.raw_data = content.getvalue()


def _plan(skeleton: Skeleton) -> _Filling | None:
    """Leave weights where they lie, and put small ones into the message; None where too many are neither."""
    from onnxpress.rewriter.skeleton import is_marked, tensors

    folder: Path | None = None
    room = INLINE
    outside: list[tuple[onnx.TensorProto, Path, int, int]] = []
    inside: list[tuple[onnx.TensorProto, Values]] = []
    for tensor in filter(is_marked, tensors(skeleton.proto.graph)):
        values = skeleton.values(tensor)
        if values is None:
            continue
        place = _place(values)
        if place is not None and folder in (None, place[0].parent):
            folder = place[0].parent
            outside.append((tensor, *place, values.nbytes))
        else:
            room -= values.nbytes
            inside.append((tensor, values))
    return None if room < 0 else _Filling(folder, outside, inside)


def _place(values: Values) -> tuple[Path, int] | None:
    """File and offset of values that ONNX Runtime can read where they are."""
    from onnxpress.rewriter.weights import Stored

    if not isinstance(values, Stored) or values.offset % _ALIGNED or not values.nbytes:
        return None
    path = values.source.path
    try:
        same = os.path.samestat(path.stat(), os.fstat(values.source.stream.fileno()))
    except OSError:
        return None
    return (path, values.offset) if same else None
