"""Which weights may go together: single ones, blocks, or all but N of every M."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.pruning import (
    Pruned,
    PrunedPiece,
    Threshold,
    apply_mask,
    block_scores,
    nm_mask,
    spread_blocks,
    threshold_mask,
    zero_below,
    zero_pieces,
)
from onnxpress.passes.selection import Layout


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Every weight by itself."""

    def scores(self, layout: Layout, weight: Array) -> Array:
        """What a threshold is compared with."""
        return weight

    def cut(self, layout: Layout, weight: Array, threshold: Threshold) -> Pruned:
        """Zero the weights below the threshold."""
        return zero_below(weight, threshold.value, ties=threshold.ties)

    def pieces(self, weight: Array, threshold: Threshold) -> Iterator[PrunedPiece]:
        """The same piece by piece."""
        return zero_pieces(weight, threshold.value, ties=threshold.ties)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of the matrix [out, in·kernel], by their root mean square.

    Attributes:
        height: along out.
        width: along in·kernel.
    """

    height: int
    width: int

    def scores(self, layout: Layout, weight: Array) -> Array:
        """One score a block, in float32: half the memory and half the readings of float64."""
        return block_scores(layout.to_rows(weight), block=(self.height, self.width)).astype(np.float32)

    def cut(self, layout: Layout, weight: Array, threshold: Threshold) -> Pruned:
        """Zero the blocks below the threshold; `tied` counts blocks."""
        scores = self.scores(layout, weight)
        kept = threshold_mask(scores, threshold.value, ties=threshold.ties)
        below = int(np.count_nonzero(scores.astype(np.float64) < threshold.value))
        mask = spread_blocks(kept, block=(self.height, self.width), shape=(layout.rows, weight.size // layout.rows))
        gone = kept.size - int(np.count_nonzero(kept))
        return replace(apply_mask(weight, layout.from_rows(mask)), tied=gone - below)


@dataclass(frozen=True, slots=True)
class NofM:
    """The `keep` largest of every `group` successive weights that are summed into one output."""

    keep: int
    group: int

    @property
    def sparsity(self) -> float:
        """Fraction that goes."""
        return 1 - self.keep / self.group

    def cut(self, layout: Layout, weight: Array) -> Pruned:
        """Zero all but the largest of each group."""
        mask = nm_mask(layout.to_rows(weight), keep=self.keep, group=self.group, axis=1)
        return apply_mask(weight, layout.from_rows(mask))


Pattern: TypeAlias = Unstructured | Blocks | NofM


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` names: `unstructured`, `2:4` (N of M are kept), `4x1` (out x in).

    Raises:
        ValueError: it names none.
    """
    if text == "unstructured":
        return Unstructured()
    if match := re.fullmatch(r"(\d+)([:x])(\d+)", text):
        first, second = int(match[1]), int(match[3])
        if match[2] == ":" and 1 <= first < second:
            return NofM(first, second)
        if match[2] == "x" and first * second > 1:
            return Blocks(first, second)
    raise ValueError(f"no pattern: {text}")
