"""Which positions of a convolution's kernel may go for all filters together, and what that costs its outputs.

A layer with weight W [groups, rows, channels·positions] computes W·x of patches x. Dropping the columns S costs
tr(W_S·W_Sᵀ) of the weight; of the outputs, once the other columns make up for it by least squares,
tr(W_S·(P_SS)⁻¹·W_Sᵀ) with P the inverse of M = Σ x·xᵀ. The pattern is that of Lebedev and Lempitsky, "Fast ConvNets
Using Group-wise Brain Damage" (2016); the criterion that of Hassibi and Stork, "Optimal Brain Surgeon" (1993), on
groups of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array, Mask
from onnxpress.passes.kernels.elimination import Reader, eliminate
from onnxpress.passes.kernels.lattices import Lattice, lattices

Numbers = NDArray[np.int64]

_DAMPING = 0.01
"""Added to the diagonal of second moments, as a part of its mean."""

_JUDGED = 24
"""Lattices of one size whose compensated loss is computed: those that lose least by a cheaper measure."""


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Units in the order in which they go.

    Attributes:
        order: numbers of the units, [n].
        errors: relative error of the layer once the first 0 … n are gone, [n + 1], ascending.
    """

    order: Numbers
    errors: Float64Array

    def within(self, limit: float) -> int:
        """How many may go for a relative error of at most `limit`."""
        return int(np.searchsorted(self.errors, limit, side="right")) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """A layer as the choice of positions sees it.

    Attributes:
        weight: [groups, rows, channels, positions].
        moment: mean of x·xᵀ, or the covariance where a bias takes up the means, [groups, k, k] with
            k = channels·positions; None to go by the weight alone.
    """

    weight: Array
    moment: Array | None = None

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: they do not fit, or hold what is no number.
        """
        groups, _, channels, positions = self.weight.shape
        k = channels * positions
        if self.moment is not None and self.moment.shape != (groups, k, k):
            raise ValueError(f"moments of shape {self.moment.shape} do not fit weights of shape {self.weight.shape}")
        if not np.isfinite(self.weight).all() or (self.moment is not None and not np.isfinite(self.moment).all()):
            raise ValueError("weights or second moments are not finite")

    @property
    def positions(self) -> int:
        """Positions of the kernel."""
        return int(self.weight.shape[3])

    def kept(self, dropped: Numbers, *, per_channel: bool) -> Mask:
        """What is left, bool [groups, channels, positions], without units that a path numbers."""
        groups, _, channels, positions = self.weight.shape
        mask = np.ones((groups, channels, positions), np.bool_)
        if per_channel:
            mask.reshape(-1)[dropped] = False
        else:
            mask[..., dropped] = False
        return mask


def shared_path(taps: Taps) -> Path:
    """Positions, each of which goes for all input channels; the last one stays."""
    if taps.moment is None:
        return _by_size(np.square(taps.weight, dtype=np.float64).sum(axis=(0, 1, 2)), most=taps.positions - 1)
    left = list(range(taps.positions))
    surgery = _Surgery.of(taps)
    order: list[int] = []
    lost = [0.0]
    for _ in range(taps.positions - 1):
        costs = [surgery.cost(surgery.columns(each)) for each in left]
        best = int(np.argmin(costs))
        order.append(left.pop(best))
        lost.append(lost[-1] + costs[best])
        surgery = surgery.without(surgery.columns(order[-1]))
    return Path(np.array(order, np.int64), _relative(np.array(lost), surgery.energy))


def column_path(taps: Taps, *, most: int) -> Path:
    """Positions in single input channels, numbered in the order of [groups, channels, positions].

    Args:
        taps: the layer.
        most: how many may go.
    """
    if taps.moment is None:
        return _by_size(np.square(taps.weight, dtype=np.float64).sum(axis=1).reshape(-1), most=most)
    groups, rows, channels, positions = taps.weight.shape
    k = channels * positions
    single = np.arange(k)[:, np.newaxis]
    steps: list[Float64Array] = []
    numbers: list[Numbers] = []
    energy = 0.0
    for group, (weight, moment) in enumerate(zip(taps.weight.reshape(groups, rows, k), taps.moment, strict=True)):
        reader = Reader(weight, moment, single)
        found = eliminate([reader], most=min(k, most), damping=_DAMPING)
        steps.append(np.maximum(np.diff(found.errors[0]) * reader.energy, 0.0))
        numbers.append(found.order + group * k)
        energy += reader.energy
    # groups are merged by what the next one costs; whoever stands behind a dear one has to wait for that
    dearest = np.concatenate([np.maximum.accumulate(each) for each in steps])
    chosen = np.argsort(dearest, kind="stable")[:most]
    lost = np.concatenate([[0.0], np.cumsum(np.concatenate(steps)[chosen])])
    return Path(np.concatenate(numbers)[chosen], _relative(lost, energy))


def capped(order: Numbers, positions: int, keep: int, channels: int) -> Numbers:
    """Of units in an order, as `column_path` numbers them, those that go where each channel keeps `keep` positions.

    Args:
        order: of all units.
        positions: of the kernel.
        keep: at least 1.
        channels: of all groups.
    """
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    first = np.argsort(rank.reshape(channels, positions), axis=1)[:, : positions - keep]
    return np.sort((first + np.arange(channels)[:, np.newaxis] * positions).reshape(-1))


def best_lattice(taps: Taps, kernel: Sequence[int], *, keep: int) -> tuple[Lattice, float]:
    """The lattice of at most `keep` positions, as many as one can have, that loses least; with its relative error.

    Args:
        taps: the layer.
        kernel: its sides.
        keep: at least 1.
    """
    found = [each for each in lattices(kernel) if each.size <= keep]
    largest = max(each.size for each in found)
    return _Judge.of(taps, kernel).least([each for each in found if each.size == largest])


def smallest_lattice(taps: Taps, kernel: Sequence[int], *, limit: float) -> tuple[Lattice, float]:
    """The lattice of fewest positions whose relative error is at most `limit`; the whole kernel where there is none."""
    every, judge = list(lattices(kernel)), _Judge.of(taps, kernel)
    for size in sorted({each.size for each in every}):
        best, error = judge.least([each for each in every if each.size == size])
        if error <= limit or size == taps.positions:
            return best, error
    raise ValueError(f"a kernel {list(kernel)} has no positions")


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """What lattices of a layer lose.

    Attributes:
        kernel: its sides.
        alone: of each position what is lost without it and without compensation, were columns not correlated.
        surgery: the layer with its moments; None where there are none.
    """

    kernel: tuple[int, ...]
    alone: Float64Array
    surgery: _Surgery | None

    @classmethod
    def of(cls, taps: Taps, kernel: Sequence[int]) -> _Judge:
        squares = np.square(taps.weight.astype(np.float64))
        if taps.moment is None:
            return cls(tuple(kernel), squares.sum(axis=(0, 1, 2)), None)
        groups, _, channels, positions = squares.shape
        diagonal = np.einsum("gkk->gk", taps.moment).reshape(groups, channels, positions)
        return cls(tuple(kernel), np.einsum("grcp,gcp->p", squares, diagonal), _Surgery.of(taps))

    def least(self, chosen: Sequence[Lattice]) -> tuple[Lattice, float]:
        """The one that loses least, and its relative error."""
        gone = [np.flatnonzero(~each.mask(self.kernel)) for each in chosen]
        rough = np.array([self.alone[each].sum() for each in gone])
        if self.surgery is None:
            best = int(np.argmin(rough))
            return chosen[best], float(_relative(rough[best : best + 1], float(self.alone.sum()))[0])
        judged = np.argsort(rough, kind="stable")[:_JUDGED]
        costs = [self.surgery.cost(self.surgery.columns(*gone[index].tolist())) for index in judged]
        best = int(np.argmin(costs))
        return chosen[judged[best]], float(_relative(np.array([costs[best]]), self.surgery.energy)[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Surgery:
    """A layer while positions go: its weight, made up so far, [groups, rows, k], and P [groups, k, k]."""

    weight: Float64Array
    inverse: Float64Array
    positions: int
    energy: float

    @classmethod
    def of(cls, taps: Taps) -> _Surgery:
        groups, rows, channels, positions = taps.weight.shape
        weight = taps.weight.reshape(groups, rows, channels * positions).astype(np.float64)
        moment = np.array(taps.moment, np.float64)
        energy = float(np.einsum("grk,grk->", weight @ moment, weight))
        diagonal = np.einsum("gkk->gk", moment)
        mean = diagonal.mean(axis=1, keepdims=True)
        np.einsum("gkk->gk", moment)[...] += np.where(mean > 0, _DAMPING * mean, 1.0)
        return cls(weight, np.asarray(np.linalg.inv(moment), np.float64), positions, energy)

    def columns(self, *positions: int) -> Numbers:
        """Those of some positions, in each group."""
        starts = np.arange(0, self.weight.shape[2], self.positions)
        return np.asarray((starts[:, np.newaxis] + np.array(positions, np.int64)).reshape(-1), np.int64)

    def cost(self, columns: Numbers) -> float:
        """tr(W_S·(P_SS)⁻¹·W_Sᵀ), over all groups."""
        part = self.weight[:, :, columns]
        solved = np.linalg.solve(self.inverse[:, columns[:, np.newaxis], columns], part.transpose(0, 2, 1))
        return max(0.0, float(np.einsum("grs,gsr->", part, solved)))

    def without(self, columns: Numbers) -> _Surgery:
        """The rest made up for what goes; gone columns are zero, but for a one that keeps P regular."""
        block = self.inverse[:, columns[:, np.newaxis], columns]
        gain = np.linalg.solve(block, self.inverse[:, columns])  # (P_SS)⁻¹·P_S:
        weight: Float64Array = self.weight - self.weight[:, :, columns] @ gain
        inverse: Float64Array = self.inverse - self.inverse[:, :, columns] @ gain
        weight[:, :, columns] = 0
        inverse[:, columns], inverse[:, :, columns] = 0, 0
        inverse[:, columns, columns] = 1
        return _Surgery(weight, inverse, self.positions, self.energy)


def _by_size(energies: Float64Array, *, most: int) -> Path:
    order = np.argsort(energies, kind="stable")[:most]
    lost = np.concatenate([[0.0], np.cumsum(energies[order])])
    return Path(order.astype(np.int64), _relative(lost, float(energies.sum())))


def _relative(lost: Float64Array, energy: float) -> Float64Array:
    """Root of the part of the energy that is lost."""
    return np.asarray(np.sqrt(lost / energy) if energy > 0 else np.zeros_like(lost), np.float64)
