"""A weight that is to get few values, and the few values it might get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.points import Floats
from onnxpress.passes.selection import Layout


@dataclass(frozen=True, slots=True)
class Codebook:
    """Which value each weight takes; keeps values, not codes.

    Attributes:
        layout: of the weight.
        values: [1, values] for the whole weight, [rows, values] for each row of the layout its own.
        code: gives the number of each weight's value, in the shape that is stored.
    """

    layout: Layout
    values: Floats
    code: Callable[[Array], Codes]

    def shared(self, weight: Array) -> Array:
        """A weight with its own values replaced; in its own dtype, which has to hold them."""
        values, codes = self.values.astype(weight.dtype), self.code(weight)
        if len(values) == 1:
            return np.asarray(values[0][codes])
        return self.layout.from_rows(np.take_along_axis(values, self.layout.to_rows(codes).astype(np.int64), 1))


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that is to get few values.

    Attributes:
        layout: of its array.
        array: as stored.
        importance: of each element, of the same shape; None where all count alike.
        keep_zero: whether its zeros stay zero.
    """

    layout: Layout
    array: Array
    importance: Array | None
    keep_zero: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """Few values for a weight.

    Attributes:
        book: gives them.
        said: what a report says of them.
        shared: the weight with them.
        error: ‖W − W'‖ / ‖W‖.
    """

    book: Codebook
    said: str
    shared: Array
    error: float

    @classmethod
    def of(cls, book: Codebook, weight: Weight, said: str) -> Draft:
        """Give a weight the values of a codebook."""
        shared = book.shared(weight.array)
        return cls(book, said, shared, relative_error(weight.array, shared))
