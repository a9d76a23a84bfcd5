"""Square blocks of one form, stacked where a weight has more outputs than inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.diagonals import Map, fit, product
from onnxpress.passes.structure.forms import FLOAT, Shape, Steps

Between = Callable[[int], list[Map]]
"""The fixed matrices M₀ to M_m between the diagonals of a block, by the rows of M₀."""


def stacked(shape: Shape, inner: int) -> tuple[int, int]:
    """How many square blocks of a size are stacked for the outputs, and how many rows of each are used."""
    blocks = -(-shape[0] // inner)
    return blocks, -(-shape[0] // blocks)


def stacked_bytes(shape: Shape, count: int) -> int:
    """Bytes of parameters, so many for each input, of square blocks stacked for the outputs."""
    return FLOAT.itemsize * count * shape[1] * stacked(shape, shape[1])[0]


def spans(shape: Shape, inner: int) -> list[slice]:
    """The outputs of each block."""
    blocks, height = stacked(shape, inner)
    return [slice(at * height, min((at + 1) * height, shape[0])) for at in range(blocks)]


def fit_diagonals(
    target: Array, size: int, between: Between, start: Callable[[], list[Float64Array]], metric: Float64Array | None
) -> Float64Array:
    """Fit the diagonals of each block: the error of one has nothing to do with that of another.

    Args:
        target: the wanted weight, [out, in].
        size: n, of a block.
        between: what stands between the diagonals.
        start: draws the diagonals d₁ to d_m to begin with, [n] each, for one block after the other.
        metric: of the inputs, [in, in]; None for the identity.

    Returns:
        [blocks, m, n].
    """
    parts = [target[span] for span in spans((target.shape[0], target.shape[1]), size)]
    return np.array([fit(between(len(part)), start(), part, metric=metric) for part in parts])


def dense_of(diagonals: Array, shape: Shape, between: Between) -> Float64Array:
    """The weight that the diagonals [blocks, m, n] of stacked blocks stand for."""
    height = stacked(shape, diagonals.shape[2])[1]
    maps = between(height)
    whole = [product(maps, list(each.astype(np.float64)), height) for each in diagonals]
    return np.concatenate(whole)[: shape[0]]


def outputs(steps: Steps, whole: gs.Tensor, shape: Shape, size: int) -> gs.Tensor:
    """The outputs that stacked blocks [n, blocks, size] give, [n, out]."""
    blocks, height = stacked(shape, size)
    if height < size:
        whole = steps.node("Slice", whole, steps.sizes(0), steps.sizes(height), steps.sizes(2))
    if blocks * height == shape[0]:
        return whole
    flat = steps.reshape(whole, -1, blocks * height)
    return steps.node("Slice", flat, steps.sizes(0), steps.sizes(shape[0]), steps.sizes(1))
