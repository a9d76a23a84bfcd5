"""What the rules of all nodes wrote, before anybody asks what follows from it.

An *element* is one index of one axis of one tensor, of those axes whose size is known. Rules tie elements; what is
tied, directly or by way of other nodes, has to go together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.rewriter.errors import OnnxpressError

IntArray: TypeAlias = NDArray[np.int64]
Place: TypeAlias = tuple[gs.Tensor, int]
"""A tensor and one of its axes, counted from 0."""
Kind = Literal["channels", "neurons", "heads", "hidden"]
"""What the units of a group are."""


class Unclear(OnnxpressError):
    """A rule cannot tell what its node does with axes; rules let it pass, and the node freezes what it touches."""


class UnknownShape(Unclear):
    """Nobody knows the rank of a tensor."""


class Contradiction(Unclear):
    """Shapes do not fit the node: the model declares one that its tensor does not have."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One axis that is the product of several, outermost first.

    Attributes:
        whole: the number of its place.
        parts: the numbers of the factors' places; None of a factor that is no axis by itself.
        sizes: of the factors.
        title: of the node that folds or unfolds it.
    """

    whole: int
    parts: tuple[int | None, ...]
    sizes: tuple[int, ...]
    title: str


@dataclass(slots=True)
class Ledger:
    """All that rules wrote; places are numbered in the order in which the graph brings them.

    Attributes:
        places: by number.
        sizes: of their axes.
        whole: pairs of places of equal size, tied element by element in order.
        parts: (place, elements, place, elements), tied pairwise.
        united: (place, a label for each element): elements with equal labels go together.
        kept: (place, elements or None for all, reason).
        summed: pairs of places that a node multiplies and sums over.
        kinds: what rules know the units of a place to be.
        folds: axes that are products of others; `settle_folds` turns them into ties.
        numbers: of places, by identity of the tensor, and axis.
        known: sizes of a tensor's axes, by its identity; the model holds the tensors while rules write.
    """

    places: list[Place] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    whole: list[tuple[int, int]] = field(default_factory=list)
    parts: list[tuple[int, IntArray, int, IntArray]] = field(default_factory=list)
    united: list[tuple[int, IntArray]] = field(default_factory=list)
    kept: list[tuple[int, IntArray | None, str]] = field(default_factory=list)
    summed: list[tuple[int, int]] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=dict)
    folds: list[Fold] = field(default_factory=list)
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    known: dict[int, tuple[int | None, ...]] = field(default_factory=dict)

    def number(self, place: Place, size: int) -> int:
        """The number of a place; the tensor is held, so that its identity stays its own."""
        key = (id(place[0]), place[1])
        if key not in self.numbers:
            self.numbers[key] = len(self.places)
            self.places.append(place)
            self.sizes.append(size)
        return self.numbers[key]
