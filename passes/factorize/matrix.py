"""Two factors of a matrix at the rank that a pass chooses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from onnxpress.passes.factorize.rank import Cost, RankedPass
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lowrank import svd


@dataclass(frozen=True, slots=True)
class Split:
    """left [out, rank] · right [rank, in], and what the report says of it."""

    left: Float64Array
    right: Float64Array
    rank: int
    action: str
    error: float


def split_matrix(rule: RankedPass, matrix: Array, cost_of: Callable[[int], Cost]) -> Split:
    """The best factors of a matrix by singular values.

    Args:
        rule: chooses the rank.
        matrix: [out, in], finite.
        cost_of: what factors of a rank take.

    Raises:
        RefusalError: the rank saves nothing, or none fits the rule.
    """
    full = min(matrix.shape)
    decompose = functools.cache(lambda: svd(matrix))  # after the refusals that need no singular values
    rank = rule.choose(full, cost_of, lambda: decompose().values)
    cost = cost_of(rank)
    if not rule.always:
        cost.refuse_if_none_saved(f"rank {rank}")
    left, right = decompose().split(rank)
    stored = left.astype(matrix.dtype).astype(float) @ right.astype(matrix.dtype).astype(float)
    return Split(left, right, rank, f"rank {rank} of {full}, {cost.share()}", relative_error(matrix, stored))
