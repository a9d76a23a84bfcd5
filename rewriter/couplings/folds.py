"""Axes that are the row-major product of others: heads, flattened channels, shuffles.

Where an axis of h·d elements is seen as two axes of h and of d, either the h or the d can get fewer, not both: element
i·d + j goes with i, or with j. Which of them is decided for all such nodes at once, after every other rule has spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxpress.rewriter.couplings.ledger import Fold, IntArray, Ledger
from onnxpress.rewriter.couplings.units import survey


def coordinates(sizes: Sequence[int], part: int) -> IntArray:
    """Coordinate of each element of the product along factor `part`, int64 [∏ sizes]."""
    inner = int(np.prod(sizes[part + 1 :], dtype=np.int64))
    whole = int(np.prod(sizes, dtype=np.int64))
    coordinate: IntArray = np.arange(whole, dtype=np.int64) // inner % sizes[part]
    return coordinate


def choose_parts(
    folds: Sequence[Fold], same: Sequence[int], sizes: Sequence[int], free: Callable[[int], bool]
) -> list[int | None]:
    """For each fold, which of its parts the units of the whole go with; None: nothing can go.

    A class of axes (of equal size, tied in order) that stands outermost in every fold that has it goes first: heads
    before the positions within a head, channels before pixels. Where none does, as in a channel shuffle, the largest of
    the first open fold does.

    Args:
        folds: in graph order.
        same: the class of each place.
        sizes: of each place.
        free: whether units of a place could go, as far as other rules are concerned.
    """
    return _Choice(folds, same, sizes, free).result()


class _Choice:
    """The search, fold by fold; classes that no unit can leave any more are dropped."""

    def __init__(
        self, folds: Sequence[Fold], same: Sequence[int], sizes: Sequence[int], free: Callable[[int], bool]
    ) -> None:
        self.folds, self.same, self.sizes = folds, same, sizes
        self.open = {
            index: [part for part in fold.parts if part is not None and free(part)] if free(fold.whole) else []
            for index, fold in enumerate(folds)
        }
        self.chosen: list[int | None] = [None] * len(folds)

    def result(self) -> list[int | None]:
        """Choose until no fold is open."""
        dropped = {self.same[f.whole] for i, f in enumerate(self.folds) if not self.open[i]}
        dropped |= {
            self.same[p] for i, f in enumerate(self.folds) for p in f.parts if p is not None and p not in self.open[i]
        }
        self._drop(dropped)
        while remaining := [index for index in self.open if self.open[index]]:
            self._take(self._leader(remaining))
        return self.chosen

    def _leader(self, remaining: Sequence[int]) -> int:
        firsts = [self.same[self.open[index][0]] for index in remaining]
        later = {self.same[part] for index in remaining for part in self.open[index][1:]}
        always = next((each for each in firsts if each not in later), None)
        if always is not None:
            return always
        return self.same[max(self.open[remaining[0]], key=lambda part: self.sizes[part])]

    def _take(self, leader: int) -> None:
        losers: set[int] = set()
        for index, parts in self.open.items():
            taken = next((part for part in parts if self.same[part] == leader), None)
            if taken is not None:
                self.chosen[index] = self.folds[index].parts.index(taken)
                losers |= {self.same[part] for part in parts if part != taken}
                self.open[index] = []
        self._drop(losers - {leader})

    def _drop(self, classes: set[int]) -> None:
        """Units of these classes stay; so do those of folds of which nothing else is left."""
        while classes:
            following: set[int] = set()
            for index, fold in enumerate(self.folds):
                if not self.open[index]:
                    continue
                left = [part for part in self.open[index] if self.same[part] not in classes]
                if self.same[fold.whole] in classes:
                    following |= {self.same[part] for part in left}
                    left = []
                elif not left:
                    following.add(self.same[fold.whole])
                self.open[index] = left
            classes = following - classes


def settle_folds(ledger: Ledger) -> None:
    """Write the ties that follow from folds, once all other rules have spoken.

    Units of the chosen part take their elements of the whole with them; the other parts stay. Where no part can lose
    anything, all are tied, so that each says why.
    """
    folds = ledger.folds
    if not folds:
        return
    touched = sorted({place for fold in folds for place in (fold.whole, *fold.parts) if place is not None})
    same, free = survey(ledger, touched)
    chosen = choose_parts(
        folds, same.tolist(), ledger.sizes, lambda place: bool(free[place]) and ledger.sizes[place] > 1
    )
    for fold, choice in zip(folds, chosen, strict=True):
        every = np.arange(ledger.sizes[fold.whole], dtype=np.int64)
        reason = f"{fold.title} keeps the positions within each of its units"
        for index, part in enumerate(fold.parts):
            if part is not None and choice in (None, index):
                ledger.parts.append((fold.whole, every, part, coordinates(fold.sizes, index)))
            if part is not None and choice != index:
                ledger.kept.append((part, None, reason))
        if choice is None:
            ledger.kept.append((fold.whole, None, reason))
