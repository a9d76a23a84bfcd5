"""Which weights may go together: single ones, blocks, rows, columns, whole inputs, or all but N of every M."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Mask
from onnxpress.passes.kernels.pruning import (
    Pruned,
    PrunedPiece,
    Threshold,
    apply_mask,
    largest_mask,
    nm_mask,
    threshold_mask,
    zero_below,
    zero_pieces,
)
from onnxpress.passes.kernels.units import block_means, block_scores, spread_blocks
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True)
class Form:
    """What the rows and columns of the matrix [out, in·kernel] of a weight stand for.

    Attributes:
        kernel: successive columns that read one input; 1 where there is no kernel.
        stacks: equal stretches of rows that read inputs of their own: groups of a Conv, directions of an LSTM.
        parts: equal stretches of columns for which a row is an output of its own: groups of a ConvTranspose.
    """

    kernel: int = 1
    stacks: int = 1
    parts: int = 1

    @classmethod
    def of(cls, site: Site) -> Form:
        """The form of a site's weight as it is now."""
        pairs = list(zip(site.shape, site.axes, strict=True))
        kernel = math.prod(size for size, axis in pairs if axis == "kernel")
        batch = math.prod(size for size, axis in pairs if axis == "batch")
        if site.op == "ConvTranspose":
            return cls(kernel=kernel, parts=site.groups)
        return cls(kernel=kernel, stacks=batch * site.groups)


class _Units(ABC):
    """Rectangles of the matrix, of one size in a layer, that go together."""

    __slots__ = ()

    @abstractmethod
    def block(self, shape: tuple[int, ...], form: Form) -> tuple[int, int]:
        """Height and width of a unit of a matrix [out, in·kernel]."""

    def mask(self, scores: Array, sparsity: float, form: Form | None = None) -> Mask:
        """Which weights stay, where each unit counts with the mean of its scores and the smallest go.

        Args:
            scores: [out, in·kernel], not negative, such as squared weights or what a loss grows by; they add up.
            sparsity: fraction of the units that go, in [0, 1]: exactly `round(sparsity · units)`.
            form: of the matrix; None for one without a kernel or groups.

        Returns:
            bool [out, in·kernel], True for what stays.

        Raises:
            ValueError: `sparsity` out of range, negative scores, or too few that are numbers.
        """
        _check_scores(scores)
        block = self.block(scores.shape, form or Form())
        kept = largest_mask(block_means(scores, block=block), sparsity)
        return spread_blocks(kept, block=block, shape=scores.shape)

    def scores(self, layout: Layout, weight: Array, form: Form) -> Array:
        """The root mean square of each unit, in float32: half the memory and half the readings of float64."""
        rows = layout.to_rows(weight)
        return block_scores(rows, block=self.block(rows.shape, form)).astype(np.float32)

    def cut(self, layout: Layout, weight: Array, threshold: Threshold, form: Form) -> Pruned:
        """Zero the units below the threshold; `tied` counts units."""
        shape = (layout.rows, weight.size // layout.rows)
        scores = self.scores(layout, weight, form)
        kept = threshold_mask(scores, threshold.value, ties=threshold.ties)
        below = int(np.count_nonzero(scores.astype(np.float64) < threshold.value))
        mask = spread_blocks(kept, block=self.block(shape, form), shape=shape)
        gone = kept.size - int(np.count_nonzero(kept))
        return replace(apply_mask(weight, layout.from_rows(mask)), tied=gone - below)


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Every weight by itself."""

    def mask(self, scores: Array, sparsity: float, form: Form | None = None) -> Mask:
        """As that of `Rows`, with single weights for units."""
        _check_scores(scores)
        return largest_mask(scores, sparsity)

    def scores(self, layout: Layout, weight: Array, form: Form) -> Array:
        """What a threshold is compared with."""
        return weight

    def cut(self, layout: Layout, weight: Array, threshold: Threshold, form: Form) -> Pruned:
        """Zero the weights below the threshold."""
        return zero_below(weight, threshold.value, ties=threshold.ties)

    def pieces(self, weight: Array, threshold: Threshold) -> Iterator[PrunedPiece]:
        """The same piece by piece."""
        return zero_pieces(weight, threshold.value, ties=threshold.ties)


@dataclass(frozen=True, slots=True)
class Blocks(_Units):
    """Blocks of the matrix [out, in·kernel].

    Attributes:
        height: along out.
        width: along in·kernel.
    """

    height: int
    width: int

    def block(self, shape: tuple[int, ...], form: Form) -> tuple[int, int]:
        """As it is."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Rows(_Units):
    """Whole outputs: all weights that are summed into one of them."""

    text: ClassVar[str] = "rows"

    def block(self, shape: tuple[int, ...], form: Form) -> tuple[int, int]:
        """One row."""
        return 1, shape[1] // form.parts


@dataclass(frozen=True, slots=True)
class Columns(_Units):
    """Columns of the im2col matrix: one position of the kernel in one input channel, for all outputs that read it."""

    text: ClassVar[str] = "columns"

    def block(self, shape: tuple[int, ...], form: Form) -> tuple[int, int]:
        """One column."""
        return shape[0] // form.stacks, 1


@dataclass(frozen=True, slots=True)
class Inputs(_Units):
    """Whole inputs: all positions of the kernel in one input channel, for all outputs that read it."""

    text: ClassVar[str] = "inputs"

    def block(self, shape: tuple[int, ...], form: Form) -> tuple[int, int]:
        """The columns of one input."""
        return shape[0] // form.stacks, form.kernel


@dataclass(frozen=True, slots=True)
class NofM:
    """The `keep` largest of every `group` successive weights that are summed into one output."""

    keep: int
    group: int

    @property
    def sparsity(self) -> float:
        """Fraction that goes."""
        return 1 - self.keep / self.group

    def mask(self, scores: Array, sparsity: float | None = None, form: Form | None = None) -> Mask:
        """Which weights stay.

        Args:
            scores: [out, in·kernel], not negative.
            sparsity: None or that of the pattern, which leaves no choice.
            form: of no importance here.

        Raises:
            ValueError: another sparsity, or negative scores.
        """
        _check_scores(scores)
        if sparsity is not None and sparsity != self.sparsity:
            raise ValueError(f"{self.keep}:{self.group} means a sparsity of {self.sparsity:g}, got {sparsity:g}")
        return nm_mask(scores, keep=self.keep, group=self.group, axis=1)

    def cut(self, layout: Layout, weight: Array) -> Pruned:
        """Zero all but the largest of each group."""
        mask = nm_mask(layout.to_rows(weight), keep=self.keep, group=self.group, axis=1)
        return apply_mask(weight, layout.from_rows(mask))


Units: TypeAlias = Blocks | Rows | Columns | Inputs
Pattern: TypeAlias = Unstructured | Units | NofM

NAMED: tuple[Rows, Columns, Inputs] = (Rows(), Columns(), Inputs())
KNOWN = "be 'unstructured', 'rows', 'columns', 'inputs', 'N:M' with 1 <= N < M as '2:4', or a block as '4x1'"
"""What a pattern must be, to stand after the name of an option."""


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` names.

    Args:
        text: `unstructured`; `rows`, `columns`, `inputs`; `2:4` (N of M are kept); `4x1` (out x in).

    Raises:
        ValueError: it names none.
    """
    if text == "unstructured":
        return Unstructured()
    for each in NAMED:
        if text == each.text:
            return each
    if match := re.fullmatch(r"(\d+)([:x])(\d+)", text):
        first, second = int(match[1]), int(match[3])
        if match[2] == ":" and 1 <= first < second:
            return NofM(first, second)
        if match[2] == "x" and first * second > 1:
            return Blocks(first, second)
    raise ValueError(f"no pattern: {text}")


def _check_scores(scores: Array) -> None:
    """Refuse what no unit can be judged by.

    Raises:
        ValueError: no matrix, or negative scores.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores are those of a matrix [out, in·kernel], got shape {scores.shape}")
    if scores.size and scores.min() < 0:
        raise ValueError("scores must not be negative: give squares or magnitudes")
