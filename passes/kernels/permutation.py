"""The order of the inputs of a layer in which successive ones that must lose weights together lose least."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array

IntArray = NDArray[np.int64]

_ENOUGH = 1e-5
"""Part of all scores by which a round must gain to count."""

_PATIENCE = 6
"""Rounds without a gain after which nothing more is expected: each draws other slots."""

_PIECE = 1 << 18
"""Entries compared at once: 1 MB."""


def kept_by_groups(scores: Array, *, keep: int, group: int) -> float:
    """Sum of the `keep` largest scores of every `group` successive columns; a remainder of columns counts likewise.

    Args:
        scores: [rows, k], not negative.
        keep: N of N:M, from 1 to `group`.
        group: M.

    Raises:
        ValueError: as `_check` has it.
    """
    _check(scores, keep, group)
    whole = scores.shape[1] // group * group
    parts = scores[:, :whole].reshape(len(scores), -1, group), scores[:, np.newaxis, whole:]
    return math.fsum(float(_largest(each, keep).sum(dtype=np.float64)) for each in parts)


def group_order(scores: Array, *, keep: int, group: int, rounds: int = 60, seed: int = 0) -> IntArray:
    """An order of the columns in which `keep` of every `group` successive ones hold more of the scores.

    One column of each group, drawn at random, is taken out, and all of them are put back where together they add most:
    an assignment that is solved exactly, and cannot lose, for each may come back where it was. Many rounds of that are
    the search of Pool and Yu, "Channel Permutations for N:M Sparsity" (2021), on all groups at once.

    Args:
        scores: what is lost if a weight goes, [rows, k], not negative.
        keep: N of N:M, from 1 to `group`.
        group: M; a remainder of fewer columns stays where it is, at the end.
        rounds: at most.
        seed: of the draws.

    Returns:
        int64 [k]: `scores[:, order]` keeps at least as much as `scores`.

    Raises:
        ValueError: scores that are negative, no numbers or no matrix, or `keep` or `group` out of range.
    """
    _check(scores, keep, group)
    groups = scores.shape[1] // group
    order = np.arange(scores.shape[1], dtype=np.int64)
    total = float(scores.sum(dtype=np.float64))
    if groups < 2 or keep == group or not total > 0:
        return order
    columns = np.ascontiguousarray((scores[:, : groups * group] / total).T, np.float32)
    found, draw, idle = order[: groups * group].reshape(groups, group), np.random.default_rng(seed), 0
    for _ in range(rounds):
        slot = draw.integers(0, group, groups)
        found, gained = _assigned(columns, found, slot, keep)
        idle = 0 if gained > _ENOUGH else idle + 1
        if idle == _PATIENCE:
            break
    better = np.concatenate([found.reshape(-1), order[groups * group :]])
    # Sums in float32 may call a loss a gain.
    kept, before = (kept_by_groups(each, keep=keep, group=group) for each in (scores[:, better], scores))
    return better if kept > before else order


def _assigned(columns: NDArray[np.float32], found: IntArray, slot: IntArray, keep: int) -> tuple[IntArray, float]:
    """Give one column of each group, [k, rows], to the group where it adds most; and what that gains."""
    from scipy.optimize import linear_sum_assignment

    groups, group = found.shape
    every = np.arange(groups)
    moved = found[every, slot]
    stays = np.ones(found.shape, np.bool_)
    stays[every, slot] = False
    rest = found[stays].reshape(groups, group - 1)
    # A group that holds at least `keep` others gains by how much more a column is than the least of the best of them.
    least = np.sort(columns[rest], axis=1)[:, group - 1 - keep]
    gains = _gains(columns[moved], least)
    _, chosen = linear_sum_assignment(gains, maximize=True)
    changed = float(gains[every, chosen].sum() - np.trace(gains))
    return np.concatenate([rest, moved[chosen, np.newaxis]], axis=1), changed


def _gains(offered: NDArray[np.float32], least: NDArray[np.float32]) -> NDArray[np.float64]:
    """Σ max(0, offered − least) over rows, but for what all have in common: [groups, columns offered]."""
    gains = np.zeros((len(least), len(offered)))
    step = max(1, _PIECE // len(offered))
    for start in range(0, offered.shape[1], step):
        piece = np.ascontiguousarray(offered[:, start : start + step])
        most = np.empty_like(piece)
        for group, each in enumerate(least[:, start : start + step]):
            np.maximum(piece, each, out=most)
            gains[group] += most.sum(axis=1) - each.sum()
    return gains


def _largest(parts: Array, keep: int) -> Array:
    """The `keep` largest along the last axis; all where there are no more."""
    size = parts.shape[-1]
    return parts if size <= keep else np.partition(parts, size - keep, axis=-1)[..., size - keep :]


def _check(scores: Array, keep: int, group: int) -> None:
    if not 1 <= keep <= group:
        raise ValueError(f"keep must lie in 1..{group}, got {keep}")
    if scores.ndim != 2:
        raise ValueError(f"scores are those of a matrix [rows, k], got shape {list(scores.shape)}")
    if scores.size and not (np.isfinite(scores).all() and scores.min() >= 0):
        raise ValueError("scores must be numbers that are not negative: give squares or magnitudes")
