"""What an observer is: it looks at one tensor, batch by batch, and keeps a statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction ONNX Runtime can do inside the graph, so that only its result leaves it.

    Attributes:
        op: of ONNX.
        axes: reduced over; None for all of them.
    """

    op: Literal["ReduceMin", "ReduceMax", "ReduceMean"]
    axes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Every step-th entry of the flat tensor, taken inside the graph; the step grows with the tensor (`Spacing`).

    It makes three values: the shape of the tensor, int64 [rank]; the step, int64 [1]; and the entries, flat.

    Attributes:
        entries: at most so many.
    """

    entries: int


Wish: TypeAlias = Reduction | Sample
"""What can be computed inside the graph for an observer."""


class Observer(Protocol):
    """What looks at one tensor, batch by batch, and keeps a statistic of it."""

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch; it is not kept."""
        ...

    def merge(self, other: Self, /) -> None:
        """Take in what another one of the same kind saw of the same tensor.

        Raises:
            ConfigError: it was set up otherwise.
        """
        ...

    def state(self) -> dict[str, Array]:
        """Everything needed to go on later, as arrays for `numpy.savez`."""
        ...


@runtime_checkable
class Reducible(Protocol):
    """An observer that is content with reductions and samples of the tensor, as long as all its entries are finite."""

    def reductions(self, rank: int | None, /) -> Sequence[Wish]:
        """What to compute inside the graph; nothing where the observer must see the tensor itself.

        Args:
            rank: of the tensor; None where it is unknown.
        """
        ...

    def update_reduced(self, values: Sequence[Array], /) -> None:
        """Look at what was computed of one batch, in the order of `reductions`; all entries are finite."""
        ...


class RangeObserver(Observer, Protocol):
    """An observer that knows the range of its tensor, and can be stored.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    @property
    def low(self) -> FloatArray:
        """The lower end, float64 [] or [channels]; inf where nothing finite was seen."""
        ...

    @property
    def high(self) -> FloatArray:
        """The upper end, likewise; −inf where nothing finite was seen."""
        ...

    @property
    def ignored(self) -> int:
        """Number of entries that were NaN or infinite."""
        ...

    @property
    def empty(self) -> bool:
        """Whether some channel, or the tensor, has shown no finite entry yet."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, Array], /) -> Self:
        """Go on from a `state`."""
        ...
