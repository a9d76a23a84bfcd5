"""Positions of a kernel that a smaller kernel covers: evenly spaced ones, a box of steps along each axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from onnxpress.passes.kernels.arrays import Mask

_MANY = 128
"""Positions from which on only lattices without gaps are looked at: there are too many others."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The positions start + i·step, i < count, along each axis of a kernel.

    Attributes:
        start: first position along each axis.
        step: from one to the next, at least 1; 1 where there is only one.
        count: how many, at least 1.
    """

    start: tuple[int, ...]
    step: tuple[int, ...]
    count: tuple[int, ...]

    @property
    def size(self) -> int:
        """Positions in all."""
        return math.prod(self.count)

    @property
    def index(self) -> tuple[slice, ...]:
        """What picks them from the axes of a kernel."""
        return tuple(
            slice(start, start + (count - 1) * step + 1, step)
            for start, step, count in zip(self.start, self.step, self.count, strict=True)
        )

    def mask(self, kernel: Sequence[int]) -> Mask:
        """True for its positions, [*kernel]."""
        kept = np.zeros(tuple(kernel), np.bool_)
        kept[self.index] = True
        return kept


def bounding(kept: Mask) -> Lattice:
    """The smallest lattice that holds all positions marked in `kept`, [*kernel].

    Raises:
        ValueError: none is marked.
    """
    if not kept.any():
        raise ValueError("no position is kept")
    axes = []
    for axis in range(kept.ndim):
        used = np.flatnonzero(kept.any(axis=tuple(other for other in range(kept.ndim) if other != axis)))
        step = math.gcd(*np.diff(used).tolist()) or 1
        axes.append((int(used[0]), step, int(used[-1] - used[0]) // step + 1))
    return _of(axes)


def lattices(kernel: Sequence[int]) -> Iterator[Lattice]:
    """All lattices of a kernel."""
    plain = math.prod(kernel) > _MANY
    for axes in product(*(list(_along(size, plain)) for size in kernel)):
        yield _of(axes)


def cover(kept: Mask, *, most: int) -> tuple[Lattice, ...] | None:
    """At most `most` lattices that hold each position marked in `kept` once, and no other; the largest first.

    Each time the largest that fits is taken.

    Args:
        kept: [*kernel].
        most: how many.

    Returns:
        None where so many do not do.
    """
    inside = [(each, each.mask(kept.shape)) for each in lattices(kept.shape)]
    inside = [(each, mask) for each, mask in inside if not (mask & ~kept).any()]
    inside.sort(key=lambda pair: -pair[0].size)
    left = kept.copy()
    found: list[Lattice] = []
    while left.any() and len(found) < most:
        chosen, mask = next((each, mask) for each, mask in inside if not (mask & ~left).any())
        found.append(chosen)
        left &= ~mask
    return None if left.any() else tuple(found)


def _of(axes: Sequence[tuple[int, int, int]]) -> Lattice:
    """A lattice from its start, step and count along each axis."""
    return Lattice(tuple(each[0] for each in axes), tuple(each[1] for each in axes), tuple(each[2] for each in axes))


def _along(size: int, plain: bool) -> Iterator[tuple[int, int, int]]:
    """Start, step and count of all lattices along one axis."""
    for start in range(size):
        yield start, 1, 1
        for step in range(1, 2 if plain else size - start):
            for count in range(2, (size - 1 - start) // step + 2):
                yield start, step, count
