"""Few values with codes of various lengths, and how weights go to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes, Float64Array, pieces
from onnxpress.passes.kernels.envelopes import envelope, steps_of


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Values, and how weights go to them.

    Attributes:
        values: ascending, [values].
        lengths: of their codes in bits, −log2 of their frequencies, [values].
        price: λ, in units of h·w².
        levels: h of every step of importance, [levels].
        zero: the number of the value of weights that are zero; None where these go like others.
        bits: mean length of a code: the empirical entropy.
        loss: Σ h·(w − value)² / Σ h·w², with h in steps.
        error: ‖w − value‖ / ‖w‖, whatever the importance.
    """

    values: Float64Array
    lengths: Float64Array
    price: float
    levels: Float64Array
    zero: int | None
    bits: float
    loss: float
    error: float

    def codes(self, values: Array, weights: Array | None = None) -> Codes:
        """The number of the value of each weight.

        Args:
            values: any shape and float dtype.
            weights: importance, the same shape; given if it was when the quantizer was made.
        """
        codes = np.empty(values.shape, np.uint8)
        cuts = [envelope(self.values, self.price / level * self.lengths) for level in self.levels]
        flat = codes.reshape(-1)
        start = 0
        for piece in pieces(values):
            part = flat[start : start + piece.size]
            wide = piece.astype(np.float64)
            if weights is None:
                lines, borders = cuts[0]
                part[...] = lines[np.searchsorted(borders, wide)]
            else:
                steps = steps_of(np.asarray(weights.reshape(-1)[start : start + piece.size]), float(self.levels[0]))
                for step, (lines, borders) in enumerate(cuts):
                    chosen = steps == step
                    part[chosen] = lines[np.searchsorted(borders, wide[chosen])]
            if self.zero is not None:
                part[wide == 0] = self.zero
            start += piece.size
        return codes


def entropy(counts: Sequence[int] | Array) -> float:
    """Bits of a code on average, if none is longer than its frequency asks for: −Σ p·log2 p."""
    held = np.asarray(counts, np.float64)
    share = held[held > 0] / held.sum()
    return max(0.0, float(-(share * np.log2(share)).sum()))
