"""What the normal equations of linear layers are summed from: rows of what a layer reads, and what it must give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array
from onnxpress.calibration.views import Positions, View, spread
from onnxpress.passes.inputs import Reading
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.row_samples import Collector, Rows
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

Indices = NDArray[np.int64]

ROWS = 8192
"""Rows of what a layer reads that its equations are summed over, evenly spread."""

_ROWS_PER_INPUT = 4
"""Rows for each input of a layer, where that is more."""

_PIECE = 1 << 23
"""Entries of rows held at once: 32 MB."""

_STRETCHES = 16
"""Into how many stretches of rows a lone sample is parted."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which rows are taken, and which of them are held out.

    Attributes:
        held_out: part of the samples.
        batches: there are.
        rows: of a layer at least.
    """

    held_out: float
    batches: int
    rows: int = ROWS

    def positions(self, count: int, k: int) -> Positions:
        """The rows to take of the `count` that a batch has."""
        return spread(count, math.ceil(max(self.rows, _ROWS_PER_INPUT * k) / self.batches))

    def judged(self, positions: Positions, count: int, batch: int, samples: int) -> NDArray[np.bool_]:
        """Which positions are held out: whole batches, where there are few whole samples, or else stretches of rows."""
        least = math.ceil(1 / self.held_out)
        if self.batches >= least:
            unit = np.full(len(positions), batch)
        else:
            unit = positions * (samples if samples >= least else max(least, _STRETCHES)) // max(1, count)
        return np.floor((unit + 1) * self.held_out) > np.floor(unit * self.held_out)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What the product of a layer must give, of what the original's layer reads.

    Attributes:
        weight: of the original, float32 [its groups, rows, k]; of a single group only those rows that are wanted.
        chosen: rows that are wanted of all groups; None for all.
        shift: what the bias of the original is more, in units of the product, [out].
        groups: of the layer in the model.
        shortcut: what is added behind the layer, where that is to be made up for, too.
    """

    weight: NDArray[np.float32]
    chosen: Indices | None
    shift: Float64Array
    groups: int
    shortcut: Reading | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        site: Site,
        original: Model,
        twin: Site,
        *,
        chosen: Indices | None = None,
        shortcut: Reading | None = None,
    ) -> Target:
        """What the product of a site must give.

        Args:
            model: holds the site.
            site: to be refitted.
            original: holds the twin.
            twin: the site as it was.
            chosen: rows of the twin's matrix that are left; None for all.
            shortcut: what is added behind both.
        """
        rows = np.asarray(Layout.of(twin).to_rows(twin.array()), np.float32)
        groups = twin.groups
        if chosen is not None and groups == 1:
            rows = rows[chosen]
        shift = np.zeros(Layout.of(site).rows)
        mine, wanted = intercept_of(model, site), intercept_of(original, twin)
        if mine is not None and wanted is not None:
            bias = wanted.read(original)
            shift += (bias if chosen is None else bias[chosen]) - mine.read(model)
        weight = rows.reshape(groups, -1, rows.shape[1])
        return cls(weight, chosen, shift, site.groups, shortcut)

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of rows [its groups, n, k], what the product must give: [groups, n, rows of a group]."""
        parts = self._parted(rows @ self.weight.transpose(0, 2, 1), None if len(self.weight) == 1 else self.chosen)
        if self.shift.any():
            parts = parts + self.shift.reshape(self.groups, 1, -1).astype(np.float32)
        return np.ascontiguousarray(parts)

    def added(
        self, ours: Array, theirs: Array, positions: Positions, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """What the shortcuts of the model and of the original add: [groups, n, rows of a group] each.

        None where the two, or the layer's outputs, have not the same rows, as where one is repeated for all samples.
        """
        if self.shortcut is None:
            return None
        view, given = self.shortcut.view, []
        for array, chosen in ((theirs, self.chosen), (ours, None)):
            try:
                rows = view.rows(array, positions) if view.count(array.shape) == count else None
            except ConfigError:
                return None
            if rows is None or (chosen is not None and rows.shape[-1] <= chosen.max(initial=0)):
                return None
            given.append(self._parted(rows, chosen))
        wanted, have = given
        fits = wanted.shape == have.shape and wanted[0, 0].size * self.groups == len(self.shift)
        return (have, wanted) if fits else None

    def _parted(self, given: NDArray[np.float32], chosen: Indices | None) -> NDArray[np.float32]:
        """The chosen columns of [its groups, n, columns] by groups of the layer: [groups, n, columns of a group]."""
        if chosen is None and len(given) == self.groups:
            return given
        flat = given.transpose(1, 0, 2).reshape(given.shape[1], -1)
        flat = flat if chosen is None else flat[:, chosen]
        return flat.reshape(len(flat), self.groups, -1).transpose(1, 0, 2)


class Sums:
    """Running sums of one part of the samples, for layers that read the same; their moment is summed once."""

    def __init__(self, collector: Collector | None = None) -> None:
        """Start with none.

        Args:
            collector: is shown the rows, too.
        """
        self.count = 0
        self.collector = collector
        self._shared: list[Float64Array] = []  # Σ x·xᵀ, Σ x
        self._own: list[list[Float64Array]] = []  # of each layer Σ y·xᵀ, Σ y, Σ y²

    def add(self, rows: NDArray[np.float32], outputs: Sequence[NDArray[np.float32]]) -> None:
        """Take in rows [groups, n, k], and of each layer outputs [groups, n, its rows]."""
        across = rows.transpose(0, 2, 1)
        shared = [across @ rows, rows.sum(axis=1, dtype=np.float64)]
        own = [
            [
                (across @ each).transpose(0, 2, 1),
                each.sum(axis=1, dtype=np.float64),
                np.einsum("gnr,gnr->gr", each, each, dtype=np.float64),
            ]
            for each in outputs
        ]
        self._shared = _added(self._shared, shared)
        self._own = [_added(old, new) for old, new in zip(self._own or [[] for _ in own], own, strict=True)]
        self.count += rows.shape[1]

    def normals(self) -> list[Normal]:
        """The equations of each layer."""
        moment, input_sum = self._shared
        return [
            Normal(moment, cross, input_sum, output_sum, energy, self.count) for cross, output_sum, energy in self._own
        ]

    def rows(self, layer: int) -> tuple[Rows, ...]:
        """What was kept of the rows of one layer."""
        return self.collector.rows(layer) if self.collector else ()


def _added(totals: list[Float64Array], more: Sequence[Array]) -> list[Float64Array]:
    """Totals in float64, added to in place."""
    if not totals:
        return [np.array(each, np.float64) for each in more]
    for total, each in zip(totals, more, strict=True):
        total += each
    return totals


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a layer reads of one batch, in the model and in the original.

    Attributes:
        reading: of the model.
        array: what it is there.
        wanted: of the original.
        original: what it is there.
        shortcuts: what is added behind layers, in the model and in the original, by name.
    """

    reading: Reading
    array: Array
    wanted: Reading
    original: Array
    shortcuts: Mapping[str, tuple[Array, Array]]

    def show(self, targets: Sequence[Target], sums: tuple[Sums, Sums], sampling: Sampling, batch: int) -> None:
        """Show the rows of a batch that are taken to the sums of those to fit, or of those to judge by.

        Raises:
            ConfigError: they have no rows, or not the same ones.
        """
        count = self.reading.view.count(self.array.shape)
        if count != self.wanted.view.count(self.original.shape):
            raise ConfigError(f"it reads {count} rows where the original reads another number")
        if not count:
            return
        sizes = [view.rows(array, np.zeros(1, np.int64)).size for view, array in self._both()]
        positions = sampling.positions(count, sizes[0] // max(1, targets[0].groups))
        judged = sampling.judged(positions, count, batch, len(self.array))
        step = max(1, _PIECE // max(sizes))
        for total, part in zip(sums, (positions[~judged], positions[judged]), strict=True):
            for start in range(0, len(part), step):
                chosen = part[start : start + step]
                rows = self.reading.view.rows(self.array, chosen)
                same = self.original is self.array and self.reading.view == self.wanted.view
                original = rows if same else self.wanted.view.rows(self.original, chosen)
                added = [self._added(target, chosen, count) for target in targets]
                finite = np.ones(len(chosen), np.bool_)
                for each in (rows, original, *(side for both in added for side in both or ())):
                    finite &= np.isfinite(each).all(axis=(0, 2))
                if not finite.all():
                    rows, original = rows[:, finite], original[:, finite]
                    added = [both and (both[0][:, finite], both[1][:, finite]) for both in added]
                if rows.shape[1]:
                    outputs = [target.outputs(original) for target in targets]
                    for wanted, both in zip(outputs, added, strict=True):
                        if both:
                            wanted += both[1] - both[0]
                    total.add(rows, outputs)
                    if total.collector:
                        total.collector.add(rows, outputs, [both and both[0] for both in added])

    def _added(
        self, target: Target, positions: Positions, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        found = None if target.shortcut is None else self.shortcuts.get(target.shortcut.tensor)
        return None if found is None else target.added(*found, positions, count)

    def _both(self) -> tuple[tuple[View, Array], tuple[View, Array]]:
        return (self.reading.view, self.array), (self.wanted.view, self.original)
