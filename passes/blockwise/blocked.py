"""A weight as codes of few bits with steps for blocks of what one output multiplies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.kernels.blocks import Codes8, Steps
from onnxpress.passes.kernels.packing import packed_bytes
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """A weight as codes.

    Attributes:
        layout: how the stored weight is a matrix [rows, k] of which each row has blocks.
        bits: of a code: 8, 4 or 2.
        steps: where the codes lie.
        codes: computes them, int8 [rows, k].
        factors: the codes are of the weight times these, float32 [k]; None for ones.
    """

    layout: Layout
    bits: int
    steps: Steps
    codes: Callable[[], Codes8]
    factors: Floats | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and entries of each."""
        rows = self.layout.rows
        return rows, int(np.prod(self.layout.shape, dtype=np.int64)) // rows

    @property
    def nbytes(self) -> int:
        """Stored bytes of codes, scales and zero points."""
        rows, length = self.shape
        count = self.steps.scale.size
        scales = count * (2 if self.steps.is_short else 4)
        zeros = packed_bytes(count, self.bits) if self.steps.zero is not None else 0
        factors = 0 if self.factors is None else self.factors.nbytes
        return packed_bytes(rows * length, self.bits) + scales + zeros + factors


def layout_of(site: Site) -> Layout:
    """The matrix whose rows have blocks: outputs by inputs; of a table, its rows as they are looked up."""
    if any(use.node.op == "Gather" for use in site.uses):
        return Layout(("out", "in"), site.shape)
    return Layout.of(site)
