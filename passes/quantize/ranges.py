"""Ranges of activations, from calibration samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.observers import Histogram, Observer, RangeObserver
from onnxpress.calibration.statistics import KINDS, Statistics, fingerprint, versions
from onnxpress.calibration.stream import describe
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import UINT8, Floats, Grid, Ints, affine_scale
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.clipping import entropy_range, mse_range, percentile_range
from onnxpress.passes.quantize.bounds import floor_of
from onnxpress.passes.quantize.placement import Wrapped
from onnxpress.passes.quantize.rules import scalar
from onnxpress.passes.shards import observe_in_shards
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model

Method: TypeAlias = Literal["minmax", "average", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "average", "percentile", "mse", "entropy")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How a range follows from what was seen.

    Attributes:
        method: `minmax`, all that was seen; `average`, the mean over batches of the least and the greatest entry;
            `percentile`, without as many of the rarest entries on each side; `mse`, where rounding and clipping have
            the least squared error together; `entropy`, where codes lose the least information.
        percent: of the entries that `percentile` keeps.
        grid: the codes that `mse` and `entropy` have in mind.
    """

    method: Method = "minmax"
    percent: float = 99.99
    grid: Grid = UINT8

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: an unknown method, or `percent` outside of (0, 100].
        """
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is unknown; give {', '.join(METHODS)}")
        if not 0 < self.percent <= 100:
            raise ConfigError(f"percent must lie in (0, 100], not {self.percent}")

    @property
    def kind(self) -> str:
        """What has to observe, as `onnxpress calibrate --method` calls it."""
        return {"minmax": "minmax", "average": "average"}.get(self.method, "histogram")

    def of(self, observer: RangeObserver) -> Range:
        """The range of a tensor.

        Raises:
            ConfigError: the observer kept too little for this method.
        """
        if observer.empty:
            return Range(0.0, 0.0, observer.ignored, empty=True)
        # A histogram keeps the exact minimum and maximum, too.
        if not isinstance(observer, Histogram) or self.method == "minmax":
            if observer.kind != self.kind and not (isinstance(observer, Histogram) and self.method == "minmax"):
                raise ConfigError(
                    f"a calibration file of --method {observer.kind} has no range by {self.method}; calibrate with "
                    f"--method {self.kind}"
                )
            return Range(float(observer.low), float(observer.high), observer.ignored)
        if self.method == "average":
            raise ConfigError("a calibration file of histograms has no mean range; calibrate with --method average")
        return Range(*self._clip(*observer.profile()), observer.ignored)

    def _clip(self, counts: Array, edges: Array) -> tuple[float, float]:
        if self.method == "percentile":
            return percentile_range(counts, edges, percent=self.percent)
        if self.method == "mse":
            return mse_range(counts, edges, grid=self.grid)
        return entropy_range(counts, edges, codes=self.grid.high - self.grid.low + 1)


def measure(
    model: Model,
    tensors: Iterable[str],
    bench: Workbench,
    *,
    estimate: Estimate | None = None,
    calibration: Path | None = None,
) -> dict[str, Range]:
    """The ranges of some tensors over the calibration samples.

    Args:
        model: a model as it is, in float.
        tensors: names in the main graph.
        bench: brings the samples.
        estimate: how ranges follow from what is seen; None takes minimum and maximum.
        calibration: a file of `onnxpress calibrate`, which takes the place of the samples.

    Raises:
        FeedError: there are no samples, or they hold NaN or infinities.
        ConfigError: the calibration file is none, is of another model, or lacks a tensor or what `estimate` needs.
    """
    estimate = estimate or Estimate()
    inputs = [spec.name for spec in model.inputs if spec.dtype.kind == "f"]
    tensors = set(tensors)
    wanted = list(dict.fromkeys([*sorted(tensors), *inputs]))
    if calibration is None:
        observers: Mapping[str, RangeObserver] = {name: KINDS[estimate.kind]() for name in wanted}
        watch(model, observers, bench)
    else:
        observers = _loaded(calibration, model, wanted)
    for name in inputs:
        if observers[name].ignored and name in tensors:  # a mask of −inf is read in float
            raise FeedError(
                f"the calibration samples hold {observers[name].ignored} NaN or infinite numbers in input {name!r}; "
                "mend or drop those samples"
            )
    return {name: estimate.of(observers[name]) for name in wanted}


def _loaded(path: Path, model: Model, wanted: Sequence[str]) -> Mapping[str, RangeObserver]:
    """What a file tells of some tensors."""
    statistics = Statistics.load(path)
    statistics.check(model, name=path.name)
    for name in wanted:
        if name not in statistics.observers:
            raise ConfigError(
                f"{path.name} has nothing on tensor {name!r}; run onnxpress calibrate again on this model"
            )
    return statistics.observers


def gather(model: Model, bench: Workbench, *, kind: str = "histogram") -> Statistics:
    """Observe all that a quantizing pass may turn into codes: floats of the main graph, inputs included.

    What nothing but a Relu reads, or a Clip at zero, is left out: that operator vanishes into the one before it.

    Args:
        model: normalised, so that later runs find the same names.
        bench: brings the samples.
        kind: of the observers, a key of `KINDS`.

    Raises:
        FeedError: there are no samples, or they do not fit.
    """
    observers: dict[str, RangeObserver] = {name: KINDS[kind]() for name in _floats(model)}
    watch(model, observers, bench)
    feed = bench.feed
    batches = 0 if feed is None else feed.count if feed.count is not None else sum(1 for _ in feed)
    return Statistics(fingerprint(model), batches, observers, versions())


def _floats(model: Model) -> list[str]:
    public = output_ids(model)
    found = [spec.name for spec in model.inputs]
    for node in model.graph.nodes:
        for tensor in node.outputs:
            absorbed = len(tensor.outputs) == 1 and id(tensor) not in public and _absorbs(tensor.outputs[0])
            if tensor.name and not absorbed:
                found.append(str(tensor.name))
    return [each.name for each in describe(model, found) if each.is_float]


def _absorbs(reader: gs.Node) -> bool:
    bounds = reader.inputs[1:]
    return reader.op == "Relu" or (reader.op == "Clip" and len(bounds) > 0 and scalar(bounds[0]) == 0.0)


def watch(model: Model, observers: Mapping[str, Observer], bench: Workbench) -> None:
    """Show tensors of a model to observers, over all calibration samples.

    Raises:
        FeedError: there are no samples.
    """
    observe_in_shards(model, observers, bench)


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
