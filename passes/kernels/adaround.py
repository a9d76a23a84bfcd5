"""Rounding improved weight by weight, as long as the layer's output gets better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats, Ints
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.lattice import Rounding, groups_of, rounding

_WIDTH = 64
"""Columns between which gradients are kept up to date; the rest comes from one product of matrices."""

_STILL = 1e-3
"""A sweep that moves a smaller part of all codes is the last: what is left to win costs more than it is worth."""


def descend(weight: Array, moment: Array, start: Rounding, *, sweeps: int = 4, damping: float = 0.01) -> Rounding:
    """Move codes, one at a time, to where Σ ‖(W − Q)·x‖² = tr(E·M·Eᵀ) is least, until hardly any moves.

    The objective of AdaRound (Nagel et al., "Up or Down?", 2020), without gradients through a relaxation: with all
    other weights of a row given, the error is a parabola in one weight v, least at v + (E·M)_i / M_ii, and the best
    value is the one nearest to that. So each move lowers the error (of M with damping). All rows move at once; columns
    in turn, large second moments first. Rows that end worse than they began, without damping, stay as they were.

    Args:
        weight: [out, k], finite; group g of a grouped layer owns an equal share of the rows.
        moment: Σ x·xᵀ, [groups, k, k], or [k, k] for one group.
        start: rounded to nearest, or by `gptq`.
        sweeps: times that all columns are visited at most.
        damping: added to the diagonal of M, as a part of its mean: keeps values near the weights in directions that
            the samples say nothing about.

    Raises:
        ValueError: shapes that do not fit, or a moment that is not finite.
    """
    stacked = groups_of(moment, weight)
    groups, width = stacked.shape[:2]
    diagonal = np.diagonal(stacked, axis1=1, axis2=2)
    mean = diagonal.mean(axis=1, keepdims=True) if width else diagonal
    extra = np.asarray(damping * np.where(mean > 0, mean, 1), np.float32)
    state = _State.of(np.asarray(weight, np.float32), start, groups)
    order = np.argsort(-diagonal.sum(axis=0), kind="stable")
    for _ in range(sweeps):
        moved = sum(state.move(order[first : first + _WIDTH], stacked, extra) for first in range(0, width, _WIDTH))
        if moved < _STILL * state.codes.size:
            break
    return rounding(weight, state.found(), start.lattice, stacked).or_better(start)


@dataclass(frozen=True, slots=True)
class _State:
    """Codes on their way, [groups, k, rows of a group]: a column of the weight lies in one piece.

    Attributes:
        codes: written.
        errors: weight − value; written.
        scale: of every column, or [groups, 1, rows].
        start: holds the grid.
    """

    codes: Ints
    errors: Floats
    scale: Floats
    start: Rounding

    @classmethod
    def of(cls, weight: Floats, start: Rounding, groups: int) -> _State:
        def turned(rows: Array) -> Array:
            return np.ascontiguousarray(rows.reshape(groups, -1, rows.shape[1]).transpose(0, 2, 1))

        scale, _ = start.lattice.columns(weight.shape[1])
        errors = weight - start.lattice.values(start.codes)
        return cls(turned(start.codes).copy(), turned(errors).copy(), turned(scale), start)

    def found(self) -> Ints:
        """The codes, [out, k]."""
        return self.codes.transpose(0, 2, 1).reshape(self.start.codes.shape)

    def move(self, columns: NDArray[np.int64], moment: Floats, extra: Floats) -> int:
        """Give each of some columns its best codes in turn; how many codes moved."""
        across = moment[:, columns]
        slopes = across @ self.errors + extra[..., np.newaxis] * self.errors[:, columns]
        own = np.ascontiguousarray(across[:, :, columns])
        own[:, range(len(columns)), range(len(columns))] += extra
        moved = 0
        for index, column in enumerate(columns):
            at = column if self.scale.shape[1] > 1 else 0
            scale, old = self.scale[:, at], self.codes[:, column].astype(np.float32)
            best = slopes[:, index] / own[:, index, index, np.newaxis] / scale + old
            wide = np.clip(np.rint(best), self.start.lattice.grid.low, self.start.lattice.grid.high)
            steps = wide - old
            if not (count := int(np.count_nonzero(steps))):
                continue
            moved += count
            self.codes[:, column] = wide
            lost = steps * scale
            self.errors[:, column] -= lost
            slopes -= own[:, :, index, np.newaxis] * lost[:, np.newaxis]
        return moved
