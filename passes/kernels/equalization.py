"""Factors that make the rows of one weight as large as the columns of the next (cross-layer equalization).

    W₂ f(W₁ x + b₁) = (W₂ S) f(S⁻¹ W₁ x + S⁻¹ b₁)  for f(s x) = s f(x), s > 0

With r₁, r₂ the ranges of a channel in both weights, s = √(r₁ / r₂) makes both √(r₁ r₂), so that one scale for each
weight fits all its channels better (Nagel et al., 2019, https://arxiv.org/abs/1906.04721).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_NARROW = 1e-6
"""Of the widest channel: narrower ones hold nothing and keep their size."""

_MOST = 1e3
"""The largest factor of one step, either way."""


def equalizing(first: Doubles, second: Doubles) -> Doubles:
    """The factors s of one pair: channels of the first weight are divided by them, those of the second multiplied.

    Args:
        first: ranges r₁ of the channels in the weight that gives them, [channels], not negative.
        second: ranges r₂ in the weight that reads them, likewise.

    Returns:
        [channels], positive, 1 for a channel that one of the weights does not use.

    Raises:
        ValueError: a range is negative or not finite.
    """
    for ranges in (first, second):
        if not (np.isfinite(ranges).all() and (ranges >= 0).all()):
            raise ValueError("ranges of channels must be finite and not negative")
    used = (first > first.max(initial=0) * _NARROW) & (second > second.max(initial=0) * _NARROW)
    ratio = np.divide(first, second, out=np.ones_like(first), where=used)
    scale = np.clip(np.sqrt(ratio), 1 / _MOST, _MOST)
    # A factor for all channels alike changes no precision: none keeps activations and biases as large as they were.
    scale[used] /= np.exp(np.log(scale[used]).mean()) if used.any() else 1
    return np.asarray(scale)


def noise(first: Doubles, second: Doubles) -> float:
    """What rounding both weights with one scale each adds to the result, relative to the result, in dB.

    Steps are as large as the greatest range of a weight, and what is rounded in a channel of one weight is multiplied
    by the channel in the other: (max r₁² Σ r₂² + max r₂² Σ r₁²) / Σ r₁² r₂².

    Args:
        first: ranges r₁, [channels], not negative.
        second: ranges r₂, likewise.

    Returns:
        dB up to a constant; −inf where no channel is used by both.
    """
    one, other = np.square(first), np.square(second)
    signal = float((one * other).sum())
    if not signal:
        return -np.inf
    return float(10 * np.log10((one.max() * other.sum() + other.max() * one.sum()) / signal))
