"""Weights that go together: rectangles of a weight seen as a matrix, their scores, and which of them stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from onnxpress.passes.kernels.arrays import PIECE, Array, Float64Array, Mask, magnitudes
from onnxpress.passes.kernels.pruning import Threshold, zeros_for


def block_scores(weight: Array, *, block: tuple[int, int]) -> Float64Array:
    """The L2 norm of each block over the root of its size, so that cut-off blocks at the edge are judged alike.

    Args:
        weight: [out, ...], seen as the matrix [out, rest].
        block: (height, width).

    Returns:
        [ceil(out / height), ceil(rest / width)].

    Raises:
        ValueError: a block side below 1, or a weight of fewer than two dimensions.
    """
    return np.sqrt(_means(weight, block, np.square))


def block_means(scores: Array, *, block: tuple[int, int]) -> Float64Array:
    """The mean of each block, laid out as those of `block_scores`; scores of single weights add up.

    Raises:
        ValueError: a block side below 1, or scores of fewer than two dimensions.
    """
    return _means(scores, block, np.asarray)


def spread_blocks(kept: Mask, *, block: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    """A mask over blocks, as `block_scores` lays them out, as a mask over the weight of `shape`."""
    height, width = _block(shape, block)
    out, rest = shape[0], math.prod(shape[1:])
    return kept.repeat(height, axis=0)[:out].repeat(width, axis=1)[:, :rest].reshape(shape)


def unit_threshold(scores: Sequence[Array], sizes: Sequence[int], sparsity: float) -> Threshold:
    """The score below which units that hold the fraction `sparsity` of all weights lie, as nearly as units allow.

    Args:
        scores: of the units of each weight, of any shape; all are held in memory.
        sizes: weights in one unit, for each array of scores.
        sparsity: in [0, 1].

    Returns:
        A threshold whose `count` and `ties` count units.

    Raises:
        ValueError: `sparsity` outside [0, 1], or too few units whose score is a number.
    """
    every = np.concatenate([magnitudes(each).reshape(-1) for each in scores]) if scores else np.zeros(0)
    weights = np.repeat(np.array(sizes, np.int64), [each.size for each in scores])
    wanted = zeros_for(sparsity, int(weights.sum()))
    order = np.argsort(every, kind="stable")
    reached = np.concatenate([[0], np.cumsum(weights[order])])
    count = int(np.argmin(np.abs(reached - wanted)))
    if count == 0:
        return Threshold(0.0, 0, 0)
    value = float(every[order[count - 1]])
    if math.isnan(value):
        raise ValueError(f"cannot zero {wanted} weights: fewer than that are numbers")
    return Threshold(value, count - int(np.count_nonzero(every < value)), count)


def _means(weight: Array, block: tuple[int, int], of: Callable[[Float64Array], Float64Array]) -> Float64Array:
    """The mean of what `of` makes of the elements of each block, in the memory of one piece."""
    height, width = _block(weight.shape, block)
    matrix = weight.reshape(weight.shape[0], -1)
    across = np.arange(0, matrix.shape[1], width)
    means = np.zeros((-(-matrix.shape[0] // height), across.size))
    widths = np.minimum(width, matrix.shape[1] - across)
    step = max(1, PIECE // max(1, matrix.shape[1]))
    for index, total in enumerate(means):
        strip = matrix[index * height : (index + 1) * height]
        for row in range(0, strip.shape[0], step):
            wide = strip[row : row + step].astype(np.float64)
            total += np.add.reduceat(of(wide).sum(axis=0), across)
        total /= widths * strip.shape[0]
    return means


def _block(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    if min(block) < 1:
        raise ValueError(f"block sides must be at least 1, got {block[0]}x{block[1]}")
    if len(shape) < 2:
        raise ValueError(f"blocks need a weight of at least two dimensions, got shape {shape}")
    return block
