"""Weights in few values, for as many bits a weight as are asked: the values that cost least once they are encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxpress.passes.encode.plans import CODE_BITS
from onnxpress.passes.kernels.arrays import Array, Codes
from onnxpress.passes.kernels.entropy import SETTLED, Source
from onnxpress.passes.kernels.kmeans import kmeans_1d
from onnxpress.passes.kernels.points import Floats
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.codebooks import CodebookPass
from onnxpress.passes.share.drafts import Codebook, Draft, Weight
from onnxpress.passes.share.stored import least, stored_as

_PRICE = 1.97
"""2·ln 2·πe/6: at long codes the error of normally distributed weights is (πe/6)·4^-bits of their squares (Gish and
Pierce, 1968), and a bit is worth its derivative."""

_NARROWEST, _WIDEST = 0.25, 11.0
"""Widths between which one is sought that fits."""

_TRIED = 10
_PART, _STRETCH = 1 << 17, 1 << 12
"""Elements that tell for all how wide codes may be, and those of them that lie side by side."""

_SETTLED = 1e-4
"""Where the values of these have settled well enough."""

_CLOSE = 0.997
"""Part of the limit that is near enough."""


class Coder:
    """A weight, ready to be given few values."""

    def __init__(
        self,
        values: Array,
        importance: Array | None,
        *,
        keep_zero: bool,
        huffman: bool,
        settled: float = SETTLED,
    ) -> None:
        """Sort the weights once.

        Args:
            values: any shape, finite.
            importance: of each, the same shape; None where all count alike.
            keep_zero: whether zeros stay zero.
            huffman: whether codes will be of variable length.
            settled: as `Source.quantizer` has it.

        Raises:
            ValueError: weights that are not finite, or nothing to weigh them by.
        """
        self._values, self._importance, self._keep_zero = values, importance, keep_zero
        self._source = Source(values, weights=importance, keep_zero=keep_zero) if huffman else None
        self._settled = settled
        self.listed = int(np.count_nonzero(values)) if keep_zero else values.size

    def coded(self, width: float) -> tuple[Floats, Codes]:
        """Values, ascending, and the number of each weight's.

        Args:
            width: bits of a code, about, of weights that are not kept zero; a whole number without Huffman codes.
        """
        if self._source is None:
            return kmeans_1d(
                self._values, 1 << round(width), weights=self._importance, keep_zero=self._keep_zero and width >= 1
            )
        price = _PRICE * 4.0**-width * self._values.size / max(1, self.listed)
        found = self._source.quantizer(price, settled=self._settled)
        values: Floats = found.values if self._values.dtype == np.float64 else found.values.astype(np.float32)
        return values, found.codes(self._values, self._importance)

    def shared(self, width: float) -> Array:
        """The weights with the values they take, in their own dtype."""
        values, codes = self.coded(width)
        return np.asarray(values.astype(self._values.dtype)[codes])


@dataclass(frozen=True, kw_only=True)
class ShareWithin(CodebookPass):
    """Give a weight the best values with which it takes no more than so many bytes in the encoded file.

    Attributes:
        limit: bytes of each weight.
        width: bits of a code with which it is tried first.
        huffman: whether Huffman codes may be taken.
    """

    name: ClassVar[str] = "share-budget"
    limit: float
    width: float
    huffman: bool = True

    def draft(self, weight: Weight) -> Draft:
        """The values that just fit; the fewest, where none do.

        Raises:
            RefusalError: weights that are no numbers, or that have few values already.
        """
        try:
            coder = Coder(weight.array, weight.importance, keep_zero=weight.keep_zero, huffman=self.huffman)
            values, codes = self._searched(coder, weight) if self.huffman else self._counted(coder, weight)
        except ValueError as error:
            raise RefusalError(str(error)) from error
        draft = Draft.of(Codebook(weight.layout, values[None], lambda _: codes), weight, f"{values.size} values")
        if draft.error == 0:
            raise RefusalError(f"has {values.size} distinct values already, which fit")
        return draft

    def _searched(self, coder: Coder, weight: Weight) -> tuple[Floats, Codes]:
        """The widest codes that fit; of a large weight a part tells where to look."""
        width = self.width
        if weight.array.size > 2 * _PART:
            part = _part_of(weight)
            some = Coder(part.array, part.importance, keep_zero=weight.keep_zero, huffman=True, settled=_SETTLED)
            width = self._within(some, part, weight.array.shape, width)[1]
        return self._within(coder, weight, weight.array.shape, width)[0]

    def _within(
        self, coder: Coder, weight: Weight, shape: Sequence[int], width: float
    ) -> tuple[tuple[Floats, Codes], float]:
        """The widest codes with which a weight of a shape fits, by secants within a bracket, and their width."""
        low, high, width = _NARROWEST, _WIDEST, min(max(width, _NARROWEST), _WIDEST)
        listed = max(1.0, coder.listed * math.prod(shape) / weight.array.size)
        best = None
        for _ in range(_TRIED):
            found = coder.coded(width)
            nbytes = self._bytes(found, weight, shape)
            if nbytes <= self.limit:
                best, low = (found, width), width
                if nbytes >= _CLOSE * self.limit:
                    break
            else:
                high = width
            if high - low < 0.01:
                break
            width += ((1 + _CLOSE) / 2 * self.limit - nbytes) * 8 / listed
            width = width if low < width < high else (low + high) / 2
        return best or (coder.coded(_NARROWEST), _NARROWEST)

    def _counted(self, coder: Coder, weight: Weight) -> tuple[Floats, Codes]:
        """The widest codes of whole bits that fit."""
        found = None
        for bits in sorted((each for each in CODE_BITS if each <= self.width + 1), reverse=True):
            found = coder.coded(bits)
            if self._bytes(found, weight, weight.array.shape) <= self.limit:
                return found
        return found or coder.coded(1)

    def _bytes(self, found: tuple[Floats, Codes], weight: Weight, shape: Sequence[int]) -> int:
        values, codes = found
        return least(stored_as(values.astype(weight.array.dtype)[codes], huffman=self.huffman, whole=shape)).nbytes


def _part_of(weight: Weight) -> Weight:
    """Stretches of a weight, evenly apart, flat."""
    starts = np.linspace(0, weight.array.size - _STRETCH, _PART // _STRETCH).astype(np.int64)
    places = (starts[:, None] + np.arange(_STRETCH)).reshape(-1)
    importance = None if weight.importance is None else weight.importance.reshape(-1)[places]
    return replace(weight, array=weight.array.reshape(-1)[places], importance=importance)
