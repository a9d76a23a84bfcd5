"""What the normal equations of linear layers are summed from: rows of what a layer reads, and what it must give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array
from onnxpress.calibration.views import Positions, View, spread
from onnxpress.passes.inputs import Reading
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.normal import Normal
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
        weight: of the original, float32 [its groups, rows, k].
        chosen: rows that are wanted of all groups; None for all.
        shift: what the bias of the original is more, in units of the product, [out].
        groups: of the layer in the model.
    """

    weight: NDArray[np.float32]
    chosen: Indices | None
    shift: Float64Array
    groups: int

    @classmethod
    def of(cls, model: Model, site: Site, original: Model, twin: Site, chosen: Indices | None) -> Target:
        """What the product of a site must give.

        Args:
            model: holds the site.
            site: to be refitted.
            original: holds the twin.
            twin: the site as it was.
            chosen: rows of the twin's matrix that are left; None for all.
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
        return cls(weight, None if groups == 1 else chosen, shift, site.groups)

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of rows [its groups, n, k], what the product must give: [groups, n, rows of a group]."""
        given = rows @ self.weight.transpose(0, 2, 1)
        if self.chosen is None and len(given) == self.groups:
            parts = given
        else:
            flat = given.transpose(1, 0, 2).reshape(given.shape[1], -1)
            flat = flat if self.chosen is None else flat[:, self.chosen]
            parts = flat.reshape(len(flat), self.groups, -1).transpose(1, 0, 2)
        if self.shift.any():
            parts = parts + self.shift.reshape(self.groups, 1, -1).astype(np.float32)
        return np.ascontiguousarray(parts)


class Sums:
    """Running sums of one part of the samples, for layers that read the same; their moment is summed once."""

    def __init__(self) -> None:
        self.count = 0
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


def _added(totals: list[Float64Array], more: Sequence[Array]) -> list[Float64Array]:
    """Totals in float64, added to in place."""
    if not totals:
        return [np.array(each, np.float64) for each in more]
    for total, each in zip(totals, more, strict=True):
        total += each
    return totals


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a layer reads of one batch, in the model and in the original."""

    reading: Reading
    array: Array
    wanted: Reading
    original: Array

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
                rows, original = (view.rows(array, part[start : start + step]) for view, array in self._both())
                finite = np.isfinite(rows).all(axis=(0, 2)) & np.isfinite(original).all(axis=(0, 2))
                if not finite.all():
                    rows, original = rows[:, finite], original[:, finite]
                if rows.shape[1]:
                    total.add(rows, [target.outputs(original) for target in targets])

    def _both(self) -> tuple[tuple[View, Array], tuple[View, Array]]:
        return (self.reading.view, self.array), (self.wanted.view, self.original)
