"""Rounding that makes up for the error of each column in the columns after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats, Grid, Ints
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.lattice import Lattice, Rounding, groups_of, rounding

Order: TypeAlias = Literal["activation"] | None
Chooser: TypeAlias = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Scale [rows] and zero [rows] for weights [rows, block] whose inputs have second moments [rows, block]."""

_WIDTH = 64
"""Columns that are made up for one by one; all before them in one product of matrices."""

_MOST_DAMPING = 1e3


def gptq(
    weight: Array,
    moment: Array,
    lattice: Lattice,
    *,
    choose: Chooser | None = None,
    damping: float = 0.01,
    order: Order = "activation",
) -> Rounding:
    """Round column by column, each time to the value nearest to what makes up for all errors so far.

    Minimises Σ ‖(W − Q)·x‖² = tr(E·M·Eᵀ). With M = R·Rᵀ, R upper triangular, that is ‖E·R‖², whose column i is
    E_i·R_ii + Σ_{j<i} E_j·R_ji: given the errors before, the best value is w_i + Σ_{j<i} E_j·R_ji / R_ii, which is then
    rounded. These are the codes of Frantar et al., "GPTQ" (2023), in exact arithmetic, without the inverse of M (Chen
    et al., 2025, show that it is Babai's nearest plane). Inputs that were never seen are rounded to nearest. Where
    rounding to nearest is better in a row, that is kept, so no row is worse than it.

    Args:
        weight: [out, k], finite; group g of a grouped layer owns an equal share of the rows.
        moment: Σ x·xᵀ, [groups, k, k], or [k, k] for one group.
        lattice: the values; where `choose` is given, those of rounding to nearest.
        choose: chooses scale and zero of each block anew, from weights that make up for the errors of all blocks
            before; None to keep the lattice's.
        damping: added to the diagonal of M, as a part of its mean; more where M has no factor otherwise.
        order: "activation" rounds the columns of large second moments first (whole blocks, and within them), since
            later columns make up for earlier ones; None keeps the order.

    Raises:
        ValueError: shapes that do not fit, or a moment that is not finite or has no factor.
    """
    stacked = groups_of(moment, weight)
    nearest = rounding(weight, lattice.nearest(weight), lattice, stacked)
    problem = _Problem.of(np.asarray(weight, np.float32), stacked, lattice, order)
    factor = _factor(stacked, problem.columns, damping)
    diagonal = np.take_along_axis(np.diagonal(stacked, axis1=1, axis2=2), problem.columns, axis=1)
    codes, solved = problem.restore(*_round(problem, factor, choose, diagonal), lattice)
    return rounding(weight, codes, solved, stacked).or_better(nearest)


@dataclass(frozen=True, slots=True)
class _Problem:
    """A weight with its columns in the order of rounding, each a row, so that it lies in one piece.

    Attributes:
        weight: [groups, k, rows of a group].
        scale: [groups, blocks, rows of a group].
        zero: likewise.
        columns: original columns in order, [groups, k].
        blocks: original blocks in order, [groups, blocks].
        ends: (start, stop) of each block, in order.
        grid: the codes.
    """

    weight: Floats
    scale: Floats
    zero: Floats
    columns: NDArray[np.int64]
    blocks: NDArray[np.int64]
    ends: list[tuple[int, int]]
    grid: Grid

    @classmethod
    def of(cls, weight: Floats, moment: Floats, lattice: Lattice, order: Order) -> _Problem:
        groups, width = moment.shape[:2]
        columns, blocks, ends = _ordered(np.diagonal(moment, axis1=1, axis2=2), lattice.block, order)
        parts = weight.reshape(groups, -1, width).transpose(0, 2, 1)
        scale, zero = (
            np.take_along_axis(each.reshape(groups, -1, each.shape[1]).transpose(0, 2, 1), blocks[..., None], axis=1)
            for each in (lattice.scale, lattice.zero)
        )
        return cls(
            np.take_along_axis(parts, columns[..., None], axis=1), scale, zero, columns, blocks, ends, lattice.grid
        )

    def restore(self, codes: Ints, scale: Floats, zero: Floats, lattice: Lattice) -> tuple[Ints, Lattice]:
        """Codes [out, k] and their lattice, in the original order."""
        at = np.argsort(self.columns, axis=1)[..., None]
        back = np.take_along_axis(codes, at, axis=1).transpose(0, 2, 1).reshape(-1, self.columns.shape[1])
        at = np.argsort(self.blocks, axis=1)[..., None]
        steps, origin = (
            np.take_along_axis(each, at, axis=1).transpose(0, 2, 1).reshape(lattice.scale.shape)
            for each in (scale, zero)
        )
        return back, Lattice(self.grid, steps, origin, lattice.block)


def _ordered(
    diagonal: Floats, block: int, order: Order
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[tuple[int, int]]]:
    """Columns and blocks in the order of rounding, and where each block begins and ends."""
    groups, width = diagonal.shape
    count = -(-width // block)
    columns = np.broadcast_to(np.arange(width), (groups, width))
    blocks = np.broadcast_to(np.arange(count), (groups, count))
    if order is not None:
        starts = np.arange(0, width, block)
        weight = np.add.reduceat(diagonal, starts, axis=1) if width else np.zeros((groups, 0))
        if width % block and count:
            weight[:, -1] = -1  # a shorter block stays the last, so that all groups have it there
        blocks = np.argsort(-weight, axis=1, kind="stable")
        rank = np.argsort(blocks, axis=1)[:, np.arange(width) // block]
        columns = np.lexsort((-diagonal, rank), axis=1)
    return columns, blocks, [(start, min(start + block, width)) for start in range(0, width, block)]


def _factor(moment: Floats, columns: NDArray[np.int64], damping: float) -> Floats:
    """Upper triangular R, R·Rᵀ = M + damping, with rows and columns in the order given; float32 [groups, k, k]."""
    factors = np.empty_like(moment)
    for group, order in enumerate(columns):
        # the factor of the reversed matrix is lower triangular: reversed, it is upper
        backwards = order[::-1]
        wide = moment[group][np.ix_(backwards, backwards)].astype(np.float64)
        factors[group] = _lower(wide, damping)[::-1, ::-1]
    return factors


def _lower(square: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    diagonal = np.einsum("ii->i", square)
    given = diagonal.copy()
    mean = float(given.mean()) if given.any() else 1.0
    while damping <= _MOST_DAMPING:
        diagonal[:] = np.where(given > 0, given, mean) + damping * mean
        try:
            return np.asarray(np.linalg.cholesky(square), np.float64)
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-6)
    raise ValueError("the second moment is not one: it has negative directions")


def _round(problem: _Problem, factor: Floats, choose: Chooser | None, diagonal: Floats) -> tuple[Ints, Floats, Floats]:
    """Codes [groups, k, rows], scale and zero [groups, blocks, rows]."""
    scale, zero, errors = problem.scale.copy(), problem.zero.copy(), np.zeros_like(problem.weight)
    codes = np.empty(problem.weight.shape, problem.grid.dtype)
    for index, (start, stop) in enumerate(problem.ends):
        if choose is not None:
            scale[:, index], zero[:, index] = _chosen(problem, factor, errors, (start, stop), choose, diagonal)
        for first in range(start, stop, _WIDTH):
            last = min(first + _WIDTH, stop)
            pending = _pending(factor, errors, first, last)
            for column in range(first, last):
                own = factor[:, column, column, np.newaxis]
                wide = np.rint((problem.weight[:, column] + pending[:, column - first] / own) / scale[:, index])
                wide = np.clip(wide + zero[:, index], problem.grid.low, problem.grid.high)
                codes[:, column] = wide
                lost = problem.weight[:, column] - (wide - zero[:, index]) * scale[:, index]
                errors[:, column] = lost
                ahead = factor[:, column, column + 1 : last, np.newaxis]
                pending[:, column + 1 - first :] += ahead * lost[:, np.newaxis]
    return codes, scale, zero


def _pending(factor: Floats, errors: Floats, first: int, last: int) -> Floats:
    """Σ_{j<first} R_ji·E_j for the columns i of a stretch, [groups, last − first, rows]."""
    return np.asarray(factor[:, :first, first:last].transpose(0, 2, 1) @ errors[:, :first])


def _chosen(
    problem: _Problem,
    factor: Floats,
    errors: Floats,
    ends: tuple[int, int],
    choose: Chooser,
    diagonal: Floats,
) -> tuple[Floats, Floats]:
    """Scale and zero [groups, rows] for a block that makes up for all errors before it."""
    start, stop = ends
    pending = _pending(factor, errors, start, stop)
    own = factor[:, start:stop, start:stop].transpose(0, 2, 1)
    wanted = problem.weight[:, start:stop] + np.linalg.solve(own, pending)
    groups, width, rows = wanted.shape
    flat = wanted.transpose(0, 2, 1).reshape(-1, width)
    scale, zero = choose(flat, np.repeat(diagonal[:, start:stop], rows, axis=0))
    return scale.reshape(groups, rows), zero.reshape(groups, rows)
