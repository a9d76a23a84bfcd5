"""Which axes of two shapes of the same elements correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring axes before and after that hold the same elements in the same order.

    Attributes:
        old: axes before.
        new: axes after.
        exact: known to hold equally many; otherwise some size is not fixed.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    exact: bool


def align(old: Sequence[object], new: Sequence[object]) -> list[Block]:
    """Cut two shapes of the same elements into the smallest blocks of equal product.

    From the left, then from the right, as far as sizes are known to be equal; what is between is one block that is
    not exact. Axes of size 1 belong to no block.

    Args:
        old: for each axis an int, or anything else that equals another only if the sizes do.
        new: likewise.
    """
    before = [axis for axis, size in enumerate(old) if size != 1]
    after = [axis for axis, size in enumerate(new) if size != 1]
    blocks, mirrored = [], []
    while (cut := _cut([old[a] for a in before], [new[a] for a in after])) is not None:
        blocks.append(Block(tuple(before[: cut[0]]), tuple(after[: cut[1]]), exact=True))
        before, after = before[cut[0] :], after[cut[1] :]
    while (cut := _cut([old[a] for a in reversed(before)], [new[a] for a in reversed(after)])) is not None:
        mirrored.append(Block(tuple(before[-cut[0] :]), tuple(after[-cut[1] :]), exact=True))
        before, after = before[: -cut[0]], after[: -cut[1]]
    if before or after:
        blocks.append(Block(tuple(before), tuple(after), exact=False))
    return blocks + mirrored[::-1]


def _cut(old: Sequence[object], new: Sequence[object]) -> tuple[int, int] | None:
    """How many axes from the start make the smallest block; None where a size that is not fixed stands in the way."""
    if not old or not new:
        return None
    if old[0] == new[0]:
        return 1, 1
    ends, products = [0, 0], [1, 1]
    while ends == [0, 0] or products[0] != products[1]:
        side = 0 if products[0] <= products[1] else 1
        sizes = (old, new)[side]
        size = sizes[ends[side]] if ends[side] < len(sizes) else None
        if not isinstance(size, int) or not size:
            return None
        products[side] *= size
        ends[side] += 1
    # both start with a number, so neither side is empty once the products are equal
    return ends[0], ends[1]


def steps(sizes: Sequence[int]) -> list[int]:
    """For each axis, how many elements one step along it passes."""
    return [int(np.prod(sizes[axis + 1 :], dtype=np.int64)) for axis in range(len(sizes))]
