"""Sharing that saves nothing is refused, with the figures."""

from __future__ import annotations

import math

from onnxpress.passes.selection import RefusalError


def check_saving(size: int, itemsize: int, *, codes: int, books: int = 1, what: str) -> None:
    """Refuse where codes and the values they stand for take no less than the weights.

    Args:
        size: weights.
        itemsize: bytes of one, and of one value.
        codes: distinct codes.
        books: sets of values, one for each channel for example.
        what: the values are called, with their number.

    Raises:
        RefusalError: says what they would take.
    """
    bits = math.ceil(math.log2(codes))
    stored = math.ceil(size * bits / 8) + books * codes * itemsize
    if stored >= size * itemsize:
        raise RefusalError(
            f"{what} save nothing: {bits}-bit codes and {books * codes} values take {stored} bytes, the weight "
            f"{size * itemsize}"
        )
