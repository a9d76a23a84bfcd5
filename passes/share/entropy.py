"""Weight sharing for codes of variable length: values that are cheap to store, not only near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes
from onnxpress.passes.kernels.entropy import Source
from onnxpress.passes.kernels.points import Floats
from onnxpress.passes.kernels.quantizers import Quantizer
from onnxpress.passes.selection import RefusalError, check_exactly_one, check_part, is_number, wrong
from onnxpress.passes.share.codebooks import CodebookPass
from onnxpress.passes.share.drafts import Codebook, Draft, Weight


@dataclass(frozen=True, kw_only=True)
class ShareEntropy(CodebookPass):
    """Give the weights of each site few values whose Huffman codes are short (Choi et al., 2017).

    Entropy-constrained scalar quantization (Chou et al., 1989): error and length of the codes are weighed against each
    other, so frequent values, zero above all, take more weights than the nearest. At equal entropy the error is less
    than that of k-means, and there are more values. The weights stay dense arrays; `encode` stores them as codes of
    variable length. Zeros of a pruned weight stay zero.

    Attributes:
        bits: of a code on average, by the empirical entropy, in (0, 8]; exactly one of `bits`, `price` and `error`.
        price: what a bit costs, as part of the mean square of the weight, the λ of the paper: 0.01 leaves about 3.8
            bits of normally distributed ones, 0.1 about 2.2.
        error: in (0, 1): each weight gets the shortest codes whose error ‖W − W'‖ / ‖W‖ is at most this; one that would
            need more than 256 values is left alone.
        importance: `hessian` weighs the error of each weight by the second moment of what it reads, from samples (Choi
            et al., 2017, "Towards the Limit of Network Quantization"); with `none` all count alike.
    """

    name: ClassVar[str] = "share-entropy"
    bits: float | None = None
    price: float | None = None
    error: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("bits", "price", "error"))
        if self.bits is not None and not (is_number(self.bits) and 0 < self.bits <= 8):
            raise wrong(self, "bits", "lie in (0, 8]")
        if self.price is not None and not (is_number(self.price) and 0 < self.price <= 1):
            raise wrong(self, "price", "lie in (0, 1]")
        if self.error is not None:
            check_part(self, "error")

    def draft(self, weight: Weight) -> Draft:
        """The values that meet the target.

        Raises:
            RefusalError: none do, or they save nothing.
        """
        try:
            found = self._quantizer(Source(weight.array, weights=weight.importance, keep_zero=weight.keep_zero))
        except ValueError as error:  # weights that are no numbers
            raise RefusalError(str(error)) from error
        _refuse_what_saves_nothing(weight, found)
        draft = Draft.of(_book(weight, found), weight, f"{found.values.size} values, {found.bits:.2f} bits a weight")
        if draft.error == 0:
            raise RefusalError(f"has {found.values.size} distinct values of {found.bits:.2f} bits already")
        if self.error is not None and draft.error > self.error:
            raise RefusalError(f"needs more than 256 values: their error is {draft.error:.2g}")
        return draft

    def _quantizer(self, source: Source) -> Quantizer:
        if self.bits is not None:
            return source.within_bits(self.bits)
        if self.error is not None:
            return source.within_error(self.error)
        return source.quantizer(self.price or 0.0)


def _book(weight: Weight, found: Quantizer) -> Codebook:
    """The codebook; where weights differ in importance, their codes are kept, for the values alone do not tell them."""
    values: Floats = found.values if weight.array.dtype == np.float64 else found.values.astype(np.float32)
    if weight.importance is None:
        return Codebook(weight.layout, values[None], found.codes)
    codes = found.codes(weight.array, weight.importance)

    def code(_: Array) -> Codes:
        return codes

    return Codebook(weight.layout, values[None], code)


def _refuse_what_saves_nothing(weight: Weight, found: Quantizer) -> None:
    """Refuse where codes and codebook take no less than the weights."""
    stored = found.bits * weight.array.size / 8 + found.values.size * (weight.array.itemsize + 1)
    if stored >= weight.array.nbytes:
        raise RefusalError(
            f"{found.values.size} values save nothing: codes of {found.bits:.2f} bits and the values take "
            f"{stored:.0f} bytes, the weight {weight.array.nbytes}"
        )
