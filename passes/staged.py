"""Weights that are sums of sub-vectors of several codebooks, with these codebooks at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxpress.passes.kernels.vectors import VectorCode
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.weights import Array, Values, onnx_dtype


class Staged(Values):
    """Values computed of codes and codebooks each time they are read.

    Sums of sub-vectors of two codebooks are so many different ones that nothing in an array tells what they are sums
    of. So unlike all other structure of weights this one is known only until a model is written, or the weight changes;
    `encode` stores it in between.

    Attributes:
        layout: of the weight as the matrix that the code is of.
        code: codes and codebooks; where codes are equal, bits are.
    """

    def __init__(self, layout: Layout, code: VectorCode, dtype: np.dtype[Any]) -> None:
        super().__init__(layout.shape, onnx_dtype(dtype))
        self.layout, self.code = layout, code

    def load(self) -> Array:
        """The dense array."""
        return self.layout.from_rows(self.code.decode(self.dtype))
