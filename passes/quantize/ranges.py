"""Ranges of activations, from calibration samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.calibration.observers import MinMax, Observer
from onnxpress.calibration.stream import observe
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import Floats, Grid, Ints, affine_scale
from onnxpress.passes.quantize.bounds import floor_of
from onnxpress.passes.quantize.placement import Wrapped
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True)
class Range:
    """What a tensor was seen to hold.

    Attributes:
        low: the least entry.
        high: the greatest.
        odd: entries that were NaN or infinite.
        empty: no finite entry was seen.
    """

    low: float
    high: float
    odd: int = 0
    empty: bool = False

    @property
    def usable(self) -> bool:
        """Whether codes can stand for all that was seen."""
        return not self.odd and not self.empty

    def above(self, floor: float) -> Range:
        """The range without what lies below a number."""
        return replace(self, low=max(self.low, floor), high=max(self.high, floor))

    def __or__(self, other: Range) -> Range:
        """The range of both."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.odd + other.odd)


def measure(model: Model, tensors: Iterable[str], bench: Workbench) -> dict[str, Range]:
    """The ranges of some tensors over the calibration samples.

    Args:
        model: a model as it is, in float.
        tensors: names in the main graph.
        bench: brings the samples.

    Raises:
        FeedError: there are no samples, or they hold NaN or infinities.
    """
    inputs = [spec.name for spec in model.inputs if spec.dtype.kind == "f"]
    observers = {name: MinMax() for name in dict.fromkeys([*tensors, *inputs])}
    watch(model, observers, bench)
    for name in inputs:
        if observers[name].ignored:
            raise FeedError(
                f"the calibration samples hold {observers[name].ignored} NaN or infinite numbers in input {name!r}; "
                "mend or drop those samples"
            )
    return {name: _range(each) for name, each in observers.items()}


def watch(model: Model, observers: Mapping[str, Observer], bench: Workbench) -> None:
    """Show tensors of a model to observers, over all calibration samples.

    Raises:
        FeedError: there are no samples.
    """
    if bench.feed is None:
        raise FeedError("ranges of activations come from samples; give some with --data, or quantize-dynamic instead")
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        observe(path, observers, bench.feed, providers=bench.providers, threads=bench.threads, progress=bench.progress)


def grids_of(
    tensors: Sequence[Wrapped], ranges: Mapping[str, Range], grid: Grid, *, public: Collection[int]
) -> dict[int, tuple[Floats, Ints]]:
    """Scale and zero point of each tensor, by identity; one for all tensors of a group.

    Args:
        tensors: what is turned into codes.
        ranges: by name.
        grid: the codes.
        public: identities of tensors that are read outside of the graph, too.
    """
    groups: dict[int, Range] = {}
    for each in tensors:
        seen = ranges[each.tensor.name].above(-math.inf if id(each.tensor) in public else floor_of(each.tensor))
        groups[each.group] = groups[each.group] | seen if each.group in groups else seen
    found = {group: _grid(seen, grid) for group, seen in groups.items()}
    return {id(each.tensor): found[each.group] for each in tensors}


def _grid(seen: Range, grid: Grid) -> tuple[Floats, Ints]:
    scale, zero = affine_scale(seen.low, seen.high, grid)
    if seen.low >= 0 < seen.high:
        # The greatest code must not lie a rounding beyond a Clip, or ONNX Runtime keeps the Clip.
        while float(scale * np.float32(grid.high - grid.low)) > seen.high:
            scale = np.asarray(np.nextafter(scale, np.float32(0)), np.float32)
    return scale, zero


def _range(observer: MinMax) -> Range:
    if observer.empty:
        return Range(0.0, 0.0, observer.ignored, empty=True)
    return Range(float(observer.low), float(observer.high), observer.ignored)
