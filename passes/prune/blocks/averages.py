"""What branches give on average, to stand in for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.stream import observe
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.blocks.branch import Branch
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True)
class Means:
    """Averages that stand for branches, by the name of the branch, of the shape in which they broadcast."""

    values: Mapping[str, Array]

    def of(self, branch: Branch, dtype: np.dtype[np.floating]) -> Array:
        """What stands for a branch: its average, or nothing."""
        found = self.values.get(branch.name)
        return np.zeros((), dtype) if found is None else found.astype(dtype)


class _Mean:
    """The average of a tensor along one axis."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.sum = np.zeros(0)
        self.count = 0
        self.rank = 0

    def update(self, array: Array, /) -> None:
        rows = np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis])
        self.sum = rows.sum(axis=0, dtype=np.float64) + (self.sum if self.count else 0.0)
        self.count, self.rank = self.count + len(rows), array.ndim

    def merge(self, other: _Mean, /) -> None:
        self.sum = self.sum + other.sum if self.count and other.count else (other.sum if other.count else self.sum)
        self.count, self.rank = self.count + other.count, other.rank or self.rank

    def state(self) -> dict[str, Array]:
        return {"sum": self.sum, "count": np.array(self.count)}

    def value(self) -> Array:
        """Of a shape that broadcasts against the tensor."""
        shape = [1] * self.rank
        shape[self.axis] = -1
        return (self.sum / self.count).reshape(shape)


def average(model: Model, branches: Sequence[Branch], bench: Workbench) -> Means:
    """What branches give on average over all samples, one number a channel.

    Raises:
        FeedError: there are no samples.
    """
    if bench.feed is None:
        raise FeedError("averages of branches come from samples; give some with --data")
    observers = {str(each.tensor.name): _Mean(each.axis) for each in branches}
    observe(model, observers, bench.feed, providers=bench.providers, threads=bench.threads, progress=bench.progress)
    return Means({each.name: observers[str(each.tensor.name)].value() for each in branches})
