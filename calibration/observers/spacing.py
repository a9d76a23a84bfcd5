"""Which entries of a tensor stand for all: every step-th one of the flat tensor.

A step that shares a factor with the size of an axis would see only some of its positions: every sixth entry of rows of
384 falls on 64 channels. So the step is prime to the size of every axis but the first, which is as long as the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Spacing:
    """How far apart the entries are that stand for all.

    Attributes:
        entries: at most so many.
    """

    entries: int

    def __post_init__(self) -> None:
        """Refuse less than one entry."""
        if self.entries < 1:
            raise ConfigError(f"{self.entries} entries of a tensor are too few; give 1 or more")

    def step(self, shape: Sequence[int]) -> int:
        """The step for a tensor of some shape."""
        return clear_step(math.prod(shape) // self.entries, frozenset(shape[1:]))

    def take(self, array: Array) -> Array:
        """Every step-th entry of an array, flat."""
        return array.reshape(-1)[:: self.step(array.shape)]


@cache
def clear_step(least: int, sizes: frozenset[int], *, prime: bool = False) -> int:
    """The least number above `least` that has no factor in common with any size.

    Args:
        least: 0 for every entry.
        sizes: of the axes but the first.
        prime: only primes from 11 on are fit, which seldom divide a size that is not known; 1 stays 1.
    """
    if least == 0:
        return 1
    sizes = frozenset(size for size in sizes if size > 1)
    step = max(least + 1, 11) if prime else least + 1
    while any(math.gcd(step, size) > 1 for size in sizes) or (prime and not _is_prime(step)):
        step += 1
    return step


def channel_of(shape: Sequence[int], axis: int, *, step: int, count: int) -> Array:
    """The position along an axis of every step-th entry of a flat tensor: int64 [count]."""
    after = math.prod(shape[axis % len(shape) + 1 :])
    channel: Array = np.arange(count, dtype=np.int64) * step // after % shape[axis]
    return channel


def known_sizes(shape: Sequence[int | str | None] | None) -> tuple[frozenset[int], bool]:
    """The sizes that a declared shape tells of all axes but the first, and whether it tells them all."""
    if shape is None:
        return frozenset(), False
    return frozenset(size for size in shape[1:] if isinstance(size, int)), all(
        isinstance(size, int) for size in shape[1:]
    )


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
