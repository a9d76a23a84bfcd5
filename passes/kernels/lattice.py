"""What values quantized weights may have, which of them they get, and what that costs in the layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats, Grid, Ints
from onnxpress.passes.kernels.arrays import Array, Float64Array

_PIECE = 1 << 22  # entries of error held at once


@dataclass(frozen=True, slots=True)
class Lattice:
    """The values (code − zero) · scale that the weights of a matrix [out, k] may have.

    Attributes:
        grid: the codes.
        scale: float32 [out, blocks], positive.
        zero: codes of zero, as float32 [out, blocks].
        block: columns that share a scale in each row; the last block may have fewer.
    """

    grid: Grid
    scale: Floats
    zero: Floats
    block: int

    @classmethod
    def of(cls, scale: Array, grid: Grid, *, width: int, zero: Array | int = 0, block: int | None = None) -> Lattice:
        """The lattice of given scales.

        Args:
            scale: [out], or [out, blocks] where `block` is given; positive.
            grid: the codes.
            width: k, columns of the matrix.
            zero: like `scale`, or one number.
            block: columns that share a scale; None for whole rows.

        Raises:
            ValueError: a scale is not positive, or their number does not fit.
        """
        size = block or max(1, width)
        shape = (len(scale), -(-width // size) if block else 1)
        steps = np.asarray(scale, np.float32)
        if steps.size != shape[0] * shape[1] or not (steps > 0).all():
            raise ValueError(f"expected {shape[0]} · {shape[1]} positive scales, got shape {steps.shape}")
        origin = np.broadcast_to(np.asarray(zero, np.float32).reshape((-1, shape[1]) if np.ndim(zero) else 1), shape)
        return cls(grid, steps.reshape(shape), origin, size)

    def nearest(self, weight: Array) -> Ints:
        """Codes of the values nearest to the weights, ties to even: saturate(round(w / s) + zero).

        Args:
            weight: [out, k].

        Returns:
            [out, k], of the grid's dtype.
        """
        scale, zero = self.columns(weight.shape[1])
        with np.errstate(over="ignore"):  # infinities saturate
            wide = np.rint(weight.astype(np.float32) / scale)
        wide += zero
        return np.asarray(np.clip(wide, self.grid.low, self.grid.high), self.grid.dtype)

    def values(self, codes: Ints) -> Floats:
        """(code − zero) · scale, float32 [out, k]."""
        scale, zero = self.columns(codes.shape[1])
        return np.asarray((codes.astype(np.float32) - zero) * scale)

    def columns(self, width: int) -> tuple[Floats, Floats]:
        """Scale and zero of every column, [out, k]; of whole rows as [out, 1]."""
        if self.scale.shape[1] == 1:
            return self.scale, self.zero
        repeated = (np.repeat(each, self.block, axis=1)[:, :width] for each in (self.scale, self.zero))
        scale, zero = repeated
        return scale, zero

    def choose(self, other: Lattice, rows: NDArray[np.bool_]) -> Lattice:
        """This lattice in some rows, `other` in the rest."""
        mine = rows[:, np.newaxis]
        return Lattice(
            self.grid, np.where(mine, self.scale, other.scale), np.where(mine, self.zero, other.zero), self.block
        )


@dataclass(frozen=True, slots=True)
class Rounding:
    """Codes of a weight.

    Attributes:
        codes: [out, k].
        lattice: how they are read.
        errors: of each row, Σ ‖(w − q)·x‖² over the inputs, float64 [out].
    """

    codes: Ints
    lattice: Lattice
    errors: Float64Array

    def or_better(self, other: Rounding) -> Rounding:
        """The better of both in every row."""
        mine = self.errors <= other.errors
        return Rounding(
            np.where(mine[:, np.newaxis], self.codes, other.codes),
            self.lattice.choose(other.lattice, mine),
            np.minimum(self.errors, other.errors),
        )


def rounding(weight: Array, codes: Ints, lattice: Lattice, moment: Array) -> Rounding:
    """Codes with the error that they cause in the layer's output."""
    return Rounding(codes, lattice, squared_errors(weight - lattice.values(codes), moment))


def squared_errors(error: Array, moment: Array) -> Float64Array:
    """e·M·eᵀ of every row: the summed squared error of that output, if M = Σ x·xᵀ over the inputs.

    Args:
        error: [out, k]; group g owns an equal share of the rows.
        moment: [groups, k, k], or [k, k] for one group.

    Returns:
        float64 [out], not negative.

    Raises:
        ValueError: shapes that do not fit.
    """
    stacked = groups_of(moment, error)
    parts = np.asarray(error, np.float32).reshape(len(stacked), -1, error.shape[1])
    found = np.empty(parts.shape[:2])
    step = max(1, _PIECE // max(1, len(stacked) * error.shape[1]))
    for start in range(0, parts.shape[1], step):
        part = parts[:, start : start + step]
        found[:, start : start + step] = np.einsum("gok,gok->go", part @ stacked, part, dtype=np.float64)
    return np.maximum(found, 0).reshape(-1)


def groups_of(moment: Array, weight: Array) -> Floats:
    """A moment as float32 [groups, k, k].

    Raises:
        ValueError: it does not fit the weight [out, k], or holds NaN or infinities.
    """
    stacked = np.asarray(moment, np.float32)
    stacked = stacked[np.newaxis] if stacked.ndim == 2 else stacked
    groups, *square = stacked.shape
    if square != [weight.shape[1]] * 2 or not groups or weight.shape[0] % groups:
        raise ValueError(f"moments of shape {list(moment.shape)} do not fit a weight of shape {list(weight.shape)}")
    if not np.isfinite(np.trace(stacked, axis1=1, axis2=2)).all():
        raise ValueError("second moments must be finite")
    return stacked
