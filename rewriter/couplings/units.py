"""From ties to units: connected elements, found on arrays, without a loop over elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.rewriter.couplings.ledger import IntArray, Ledger


@dataclass(frozen=True, slots=True)
class Alike:
    """Units that touch the same axes equally often, and are all frozen or all free.

    Attributes:
        rows: by number of each place, ascending: indices of the axis, int64 [units, per_unit], ascending in a row;
            units stand in the order of their first index in the first place.
        kept: number of the entry of `Ledger.kept` that freezes them, None of free ones.
    """

    rows: dict[int, IntArray]
    kept: int | None


@dataclass(frozen=True, slots=True)
class _Classes:
    """Places that are tied as a whole, in order, have the same elements.

    Attributes:
        of_place: class of each place.
        size: elements of each class.
        offset: number of the first element of each class, −1 of those that nothing wanted is connected with.
        count: elements of all classes with an offset.
    """

    of_place: IntArray
    size: IntArray
    offset: IntArray
    count: int

    def span(self, place: int, at: IntArray | None = None) -> IntArray:
        """Elements of a place, none where it has no offset."""
        owner = self.of_place[place]
        start = self.offset[owner]
        if start < 0:
            return np.empty(0, np.int64)
        span: IntArray = start + (np.arange(self.size[owner]) if at is None else at)
        return span


def find_alike(ledger: Ledger, wanted: Sequence[int]) -> list[Alike]:
    """Units of all places that are connected with the wanted ones, in groups, in the order of their first place."""
    if not wanted:
        return []
    classes = _classes(ledger, wanted)
    unit = _units(ledger, classes)
    kept = _kept(ledger, classes, unit)
    places: dict[int, list[int]] = {}
    for place, owner in enumerate(classes.of_place.tolist()):
        places.setdefault(owner, []).append(place)
    found = []
    free = len(ledger.kept)
    for by_class, units in _alike(classes, unit, kept < free):
        first = int(kept[units].min())
        found.append(_spread(by_class, places, None if first == free else first))
    return sorted(found, key=lambda alike: next((place, int(row[0, 0])) for place, row in alike.rows.items()))


def survey(ledger: Ledger, wanted: Sequence[int]) -> tuple[IntArray, NDArray[np.bool_]]:
    """What is tied so far: the class of each place, and which of the wanted places have a unit that may go.

    Returns:
        int64 [places]: places with equal numbers are tied as a whole, in order; bool [places].
    """
    classes = _classes(ledger, wanted)
    unit = _units(ledger, classes)
    stays = _kept(ledger, classes, unit) < len(ledger.kept)
    free = np.zeros(len(ledger.places), np.bool_)
    for place in wanted:
        free[place] = not stays[unit[classes.span(place)]].all()
    return classes.of_place, free


def _classes(ledger: Ledger, wanted: Sequence[int]) -> _Classes:
    sizes = np.array(ledger.sizes, np.int64)
    of_place = _components(len(sizes), np.array(ledger.whole, np.int64).reshape(-1, 2).T)
    size = np.zeros(int(of_place.max()) + 1, np.int64)
    size[of_place] = sizes
    ends = np.array([(first, second) for first, _, second, _ in ledger.parts], np.int64).reshape(-1, 2).T
    cluster = _components(len(size), of_place[ends])
    needed = np.isin(cluster, cluster[of_place[np.asarray(wanted)]])
    offset = np.where(needed, np.cumsum(size * needed) - size, -1)
    return _Classes(of_place, size, offset, int((size * needed).sum()))


def _units(ledger: Ledger, classes: _Classes) -> IntArray:
    """The unit of each element."""
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place, at, other, to in ledger.parts:
        first.append(classes.span(place, at))
        second.append(classes.span(other, to))
    for place, labels in ledger.united:
        span = classes.span(place)
        if span.size:
            _, heads, inverse = np.unique(labels, return_index=True, return_inverse=True)
            first.append(span)
            second.append(span[heads[inverse]])
    return _components(classes.count, np.stack([np.concatenate(first), np.concatenate(second)]))


def _kept(ledger: Ledger, classes: _Classes, unit: IntArray) -> IntArray:
    """Of each unit the first entry of `Ledger.kept` that freezes it; the number of entries where none does."""
    kept = np.full(int(unit.max(initial=-1)) + 1, len(ledger.kept), np.int64)
    whole: set[int] = set()
    for entry, (place, at, _) in enumerate(ledger.kept):
        owner = int(classes.of_place[place])
        if owner in whole:
            continue  # all of it is frozen by an earlier entry
        if at is None:
            whole.add(owner)
        np.minimum.at(kept, unit[classes.span(place, at)], entry)
    return kept


@dataclass(frozen=True, slots=True)
class _Runs:
    """Elements sorted by unit, then class; a run is what one unit has of one class.

    Attributes:
        order: elements, sorted.
        head: of each run, its first position in `order`.
        length: of each run.
        unit: of each run.
        owner: class of each run.
    """

    order: IntArray
    head: IntArray
    length: IntArray
    unit: IntArray
    owner: IntArray


def _runs(classes: _Classes, unit: IntArray) -> _Runs:
    counted = np.flatnonzero(classes.offset >= 0)
    owner = np.repeat(counted, classes.size[counted])
    order = np.lexsort((owner, unit))  # stable, so elements of a run ascend
    units, owners = unit[order], owner[order]
    new = (np.diff(units) != 0) | (np.diff(owners) != 0)
    head = np.flatnonzero(np.concatenate([[order.size > 0], new]))
    length = np.diff(np.concatenate([head, [order.size]]))
    return _Runs(order, head, length, units[head], owners[head])


def _alike(
    classes: _Classes, unit: IntArray, frozen: NDArray[np.bool_]
) -> Iterator[tuple[dict[int, IntArray], IntArray]]:
    """Units with equal runs: by class the indices [units, per_unit] of its axis, and the units."""
    runs = _runs(classes, unit)
    units, start, number = np.unique(runs.unit, return_index=True, return_counts=True)
    for count in np.unique(number):
        chosen = units[number == count]
        spans = start[number == count][:, None] + np.arange(count)
        signature = np.concatenate([runs.owner[spans], runs.length[spans], frozen[chosen][:, None]], axis=1)
        _, inverse = np.unique(signature, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        by_group = np.argsort(inverse, kind="stable")
        for rows in np.split(by_group, np.flatnonzero(np.diff(inverse[by_group])) + 1):
            yield _indices(classes, runs, spans[rows]), chosen[rows]


def _indices(classes: _Classes, runs: _Runs, spans: IntArray) -> dict[int, IntArray]:
    """Of units with equal runs, by class the indices of its axis: [units, per_unit]."""
    found = {}
    for column in spans.T:
        owner, length = int(runs.owner[column[0]]), int(runs.length[column[0]])
        elements = runs.order[runs.head[column][:, None] + np.arange(length)]
        found[owner] = elements - classes.offset[owner]
    return found


def _spread(by_class: dict[int, IntArray], places: dict[int, list[int]], kept: int | None) -> Alike:
    """Places instead of classes, in order, with the units in the order of the first."""
    owners = sorted((place, owner) for owner in by_class for place in places[owner])
    order = np.argsort(by_class[owners[0][1]][:, 0], kind="stable")
    sorted_rows = {owner: rows[order] for owner, rows in by_class.items()}
    return Alike({place: sorted_rows[owner] for place, owner in owners}, kept)


def _components(count: int, ends: IntArray) -> IntArray:
    """The connected component of each of `count` nodes, given edges [2, edges]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, np.int64)
    edges = coo_array((np.ones(ends.shape[1], np.bool_), (ends[0], ends[1])), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)
