"""The layers that read what the units of a group carry: whose outputs tell what a unit is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.observers import SecondMoment
from onnxpress.calibration.views import LastAxis
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import (
    MEMORY,
    Reading,
    check_width,
    in_parts,
    joined,
    moment_bytes,
    observe_readings,
    reading_of,
)
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.elimination import Reader
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use

MOST = 1 << 27
"""Entries of second moments that the consumers of one group may have, 1 GB each time; of more some are left out."""

_PER_BATCH = 2048

_PIECE = 256
"""Rows of a moment that are centred at once: no second one is made for it."""

_RECURRENT = ("LSTM", "GRU", "RNN")

Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A weight that multiplies the units, and sums over them.

    Attributes:
        site: the weight.
        columns: of its matrix (`Layout.to_rows`) that belong to each unit, [units, per unit].
        readings: what its layers read.
        biased: whether a bias behind it takes up the means of what it no longer reads.
        recurrent: whether it multiplies the hidden state that its own node gives.
    """

    site: Site
    columns: Columns
    readings: tuple[Reading, ...]
    biased: bool
    recurrent: bool

    @property
    def matrices(self) -> NDArray[np.float32]:
        """The weight as [groups, out/groups, in·kernel]."""
        rows = Layout.of(self.site).to_rows(self.site.array())
        return np.asarray(rows.reshape(self.site.groups, -1, rows.shape[1]), np.float32)


def consumers_of(model: Model, group: Group, sites: Mapping[int, Site]) -> list[Consumer]:
    """The consumers of a group whose activations can be observed and are not too wide, in the order of the members.

    Of a stream that very many layers read, some of them, evenly spread, stand for all.

    Args:
        model: holds the group.
        group: of units.
        sites: of the model, by the identity of their weights.
    """
    found = []
    for member in group.members:
        site = sites.get(id(member.tensor))
        if member.role != "in" or site is None:
            continue
        recurrent = any(use.node.op in _RECURRENT and use.index == 2 for use in site.uses)
        try:
            check_width(site)
            readings = tuple(dict.fromkeys(_hidden(model, u) if recurrent else reading_of(model, u) for u in site.uses))
        except RefusalError:
            continue
        columns = _columns(site, member.axis, member.indices)
        biased = not recurrent and intercept_of(model, site) is not None
        found.append(Consumer(site, columns, readings, biased, recurrent))
    return _fitting(found)


def _hidden(model: Model, use: Use) -> Reading:
    """The hidden states that a recurrent node gives: but for the first and the last, those that it reads.

    Raises:
        RefusalError: no tensor of the main graph holds those of one direction alone.
    """
    output = use.node.outputs[0] if use.node.outputs else None
    if use.graph is not model.graph or output is None or not output.name or use.node.inputs[use.index].shape[0] != 1:
        raise RefusalError("no tensor holds its hidden state")
    return Reading(str(output.name), LastAxis())


def _fitting(consumers: list[Consumer]) -> list[Consumer]:
    """As many as `MOST` allows, evenly spread."""
    entries = [each.site.groups * (each.site.size // max(1, Layout.of(each.site).rows)) ** 2 for each in consumers]
    count = len(consumers)
    while count > 1:
        chosen = np.unique(np.linspace(0, len(consumers) - 1, count).astype(np.int64))
        if sum(entries[index] for index in chosen) <= MOST:
            return [consumers[index] for index in chosen]
        count -= 1
    return consumers[:1]


def _columns(site: Site, axis: int, indices: Columns) -> Columns:
    """Columns of a weight's matrix by unit."""
    layout = Layout.of(site)
    shape = [1] * len(layout.shape)
    shape[axis] = layout.shape[axis]
    position = np.broadcast_to(np.arange(layout.shape[axis]).reshape(shape), layout.shape)
    first = layout.to_rows(position)[0]  # every row has its columns in the same order
    by_position = np.argsort(first, kind="stable").reshape(layout.shape[axis], -1)
    return np.asarray(np.sort(by_position[indices].reshape(len(indices), -1), axis=1), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A group with what was seen of its consumers.

    Attributes:
        group: of units.
        consumers: its consumers that saw rows.
        moments: of what each of them reads.
    """

    group: Group
    consumers: tuple[Consumer, ...]
    moments: tuple[SecondMoment, ...]

    def readers(self) -> list[tuple[Reader, ...]]:
        """Of each consumer one reader for each of its groups."""
        return [
            tuple(
                Reader(weight, _mean_moment(moment, index, centred=consumer.biased), consumer.columns)
                for index, weight in enumerate(consumer.matrices)
            )
            for consumer, moment in zip(self.consumers, self.moments, strict=True)
        ]

    def means(self) -> list[NDArray[np.float64]]:
        """The mean row that each consumer reads, [groups, k]; zeros where no bias takes it up."""
        return [
            moment.mean if consumer.biased else np.zeros_like(moment.mean)
            for consumer, moment in zip(self.consumers, self.moments, strict=True)
        ]


def _mean_moment(moment: SecondMoment, group: int, *, centred: bool) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = moment.total[group].astype(np.float64)
    wide /= max(1, moment.count)
    if not centred:
        return wide
    row = moment.mean[group]
    for start in range(0, len(row), _PIECE):
        wide[start : start + _PIECE] -= np.outer(row[start : start + _PIECE], row)
    np.fill_diagonal(wide, np.maximum(np.diagonal(wide), 0.0))  # of what is constant, rounding is left
    return wide


def watch(model: Model, groups: Sequence[tuple[Group, list[Consumer]]], bench: Workbench) -> Iterator[Watched]:
    """Gather second moments of what consumers read, as many groups at a time as fit into memory.

    Args:
        model: is not changed, and must not change between steps.
        groups: each with its consumers.
        bench: brings the samples.

    Yields:
        Every group in order; let go of one before asking for the next.

    Raises:
        FeedError: there are no samples.
    """
    for part in in_parts(groups, MEMORY, sizes=lambda each: _bytes(each[1])):
        readings = dict.fromkeys(reading for _, found in part for each in found for reading in each.readings)
        observers = {each: SecondMoment(view=each.view, per_batch=_PER_BATCH) for each in readings}
        if observers:
            observe_readings(model, observers, bench)
        for group, found in part:
            seen = []
            for each in found:
                try:
                    seen.append((each, joined([observers[reading] for reading in each.readings])))
                except RefusalError:
                    continue
            yield Watched(group, tuple(each for each, _ in seen), tuple(moment for _, moment in seen))


def _bytes(consumers: Sequence[Consumer]) -> dict[Reading, int]:
    found: dict[Reading, int] = {}
    for each in consumers:
        found |= moment_bytes(each.site, each.readings, Layout.of(each.site).rows)
    return found
