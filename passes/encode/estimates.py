"""What a weight would take about, to choose between ways of taking it apart before any of them is built."""

from __future__ import annotations

import math

import numpy as np

from onnxpress.passes.kernels.arrays import Array, bits_of, pieces
from onnxpress.passes.kernels.huffman import LONGEST, code_lengths, coded_bits
from onnxpress.passes.kernels.packing import tally

CALL = 300
"""Bytes of a call with what it takes besides codes and books, and of the function, which a model stores once."""
_MOST_DISTINCT = 4096
"""Distinct values that one book can name."""
_START = 1 / 64
"""Bits a symbol of the places where blocks of Huffman codes begin."""
_LOOSE = 1.08
"""Huffman codes of gaps by the entropy of what is zero and what is not."""


def coded_bytes(counts: Array) -> float:
    """Bytes of symbols that occur so often, [n], by the way that takes least.

    Huffman codes of all; gaps and Huffman codes of those that are not zero, for which the most frequent one is taken;
    codes of whole bits.
    """
    counts = np.sort(counts[counts > 0])
    if not counts.size:
        return 0.0
    listed, total = counts[:-1], int(counts.sum())
    share = np.array([int(counts[-1]), total - int(counts[-1])]) / total
    where = -(share[share > 0] * np.log2(share[share > 0])).sum() * _LOOSE * total
    whole = total * max(1, math.ceil(math.log2(len(counts))))
    return float(min(whole, _bits(counts), where + _bits(listed))) / 8


def _bits(counts: Array) -> float:
    if counts.size > 1 << LONGEST:
        return math.inf
    return coded_bits(counts, code_lengths(counts)) + _START * float(counts.sum())


def plain_bytes(weight: Array) -> float:
    """Bytes of a weight that is not taken apart: with one book for all of it, or as those that are not zero."""
    size, zeros = float(weight.nbytes), sum(int((bits_of(each) == 0).sum()) for each in pieces(weight))
    if zeros:
        where = coded_bytes(np.array([zeros, weight.size - zeros]))
        size = min(size, where + (weight.size - zeros) * weight.itemsize)
    if (found := tally(weight, _MOST_DISTINCT)) is not None:
        size = min(size, coded_bytes(found[1]) + found[0].nbytes)
    return size
