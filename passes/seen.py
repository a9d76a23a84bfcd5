"""The shapes of activations: as inferred, or as samples show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.stream import observe
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shape, infer_shapes


@dataclass(frozen=True, slots=True)
class Seen:
    """What a convolution reads.

    Attributes:
        shape: of a sample.
        spatial: sizes behind batch and channels that are the same for every sample; None for others.
    """

    shape: tuple[int, ...]
    spatial: tuple[int | None, ...]


def shapes_seen(model: Model, tensors: Sequence[gs.Tensor], bench: Workbench) -> list[Seen | None]:
    """The shapes of activations of the main graph: as inferred, else as a first batch of samples shows.

    Where there are no samples, an unknown number of them is taken for 1.

    Returns:
        For each tensor; None where nobody can tell.
    """
    inferred = infer_shapes(model)
    known = [inferred.shape(tensor) for tensor in tensors]
    open_ones = [tensor for tensor, shape in zip(tensors, known, strict=True) if shape is None or not _fixed(shape[1:])]
    shown = shown_shapes(model, [str(each.name) for each in open_ones], bench)
    return [_seen(shape, shown.get(str(tensor.name))) for tensor, shape in zip(tensors, known, strict=True)]


class _Shape:
    """Keeps the shape of what it is shown."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.shape: tuple[int, ...] | None = None

    def update(self, array: Array, /) -> None:
        """Look at one batch."""
        self.shape = array.shape

    def merge(self, other: Self, /) -> None:
        """Take the other's where there is none yet."""
        self.shape = self.shape or other.shape

    def state(self) -> dict[str, Array]:
        """The shape."""
        return {"shape": np.array(self.shape or (), np.int64)}


def shown_shapes(model: Model, tensors: Sequence[str], bench: Workbench) -> dict[str, tuple[int, ...]]:
    """Shapes in the first batch of samples."""
    if bench.feed is None or not tensors:
        return {}
    observers = {name: _Shape() for name in tensors}
    first = list(islice(bench.feed, 1))
    observe(model, observers, first, providers=bench.providers, threads=bench.threads)
    return {name: each.shape for name, each in observers.items() if each.shape is not None}


def _fixed(sizes: Sequence[int | str | None]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _seen(shape: Shape | None, shown: tuple[int, ...] | None) -> Seen | None:
    if shape is None:
        return None if shown is None else Seen(shown, (None,) * (len(shown) - 2))
    spatial = tuple(size if isinstance(size, int) else None for size in shape[2:])
    if shown is not None:
        return Seen(shown, spatial)
    first = shape[0] if isinstance(shape[0], int) else 1
    sizes = tuple(size for size in shape[1:] if isinstance(size, int))
    return Seen((first, *sizes), spatial) if len(sizes) == len(shape) - 1 else None
