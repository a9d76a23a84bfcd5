"""Huffman codes of bounded length, canonical, and streams of them that can be entered at every block of symbols.

A canonical code is known by the number of codes of each length and the order of the symbols: codes of one length are
consecutive numbers, and a shorter code comes before every longer one. Each code is written with its most significant
bit first. A stream is stored as words of 16 bits, the first bit of a word its most significant; it ends with the last
word, and zeros before it fill the first.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Codes, pieces, smallest_unsigned

Bytes: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint16]
Ints: TypeAlias = NDArray[np.int64]

LONGEST = 12
"""Bits of the longest code, unless told otherwise: a table of all beginnings has 4096 entries."""
WORD = 16
"""Bits that are stored together."""
BLOCK = 1024
"""Symbols between two places where decoding can start."""
_PIECE = PIECE // 8
"""Symbols that are looked at together: whole blocks."""


def code_lengths(frequencies: Array, *, limit: int = LONGEST) -> Bytes:
    """Lengths of the codes that take the fewest bits, none of them longer than `limit`, by package-merge.

    A symbol in n packages of the cheapest 2 · symbols − 2 gets n bits (Larmore and Hirschberg, 1990). Lengths of at
    least two symbols meet Kraft's inequality with equality.

    Args:
        frequencies: [symbols], counts of at least 0.
        limit: 1 to 15.

    Returns:
        Bits of each code [symbols]; 0 for symbols that do not occur, 1 for a symbol that occurs alone.

    Raises:
        ValueError: a negative count, or more symbols occur than there are codes of `limit` bits.
    """
    counts = np.asarray(frequencies, np.int64)
    if counts.size and counts.min() < 0:
        raise ValueError("a frequency is negative")
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    if not 1 <= limit <= 15 or order.size > 1 << limit:
        raise ValueError(f"{order.size} symbols have no codes of at most {limit} bits, or the limit is not in 1..15")
    lengths = np.zeros(counts.size, np.uint8)
    if order.size < 2:
        lengths[order] = 1
        return lengths
    leaves = counts[order]
    # of each level, whether the items by ascending weight are symbols (or packages of two items of the level before)
    levels, items = [np.ones(leaves.size, np.bool_)], leaves
    for _ in range(limit - 1):
        packages = items[: items.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        both = np.concatenate([leaves, packages])
        place = np.argsort(both, kind="stable")
        levels.append(place < leaves.size)
        items = both[place]
    taken = 2 * leaves.size - 2
    for level in reversed(levels):
        symbols = int(level[:taken].sum())
        lengths[order[:symbols]] += 1
        taken = 2 * (min(taken, level.size) - symbols)
    return lengths


def code_order(lengths: Bytes) -> Ints:
    """The symbols that have a code, in the order of their codes: by length, then by number."""
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def codes_of_length(lengths: Bytes, *, limit: int = LONGEST) -> NDArray[np.uint16]:
    """How many codes have 1, 2, ... `limit` bits: [limit]."""
    return np.bincount(lengths, minlength=limit + 1)[1 : limit + 1].astype(np.uint16)


def canonical_codes(lengths: Bytes) -> NDArray[np.uint16]:
    """The code of each symbol as a number: its lowest `lengths` bits; 0 where there is none."""
    order, longest = code_order(lengths), int(lengths.max(initial=0))
    codes = np.zeros(lengths.size, np.uint16)
    room = np.int64(1) << (longest - lengths[order].astype(np.int64))
    codes[order] = (np.cumsum(room) - room) >> (longest - lengths[order].astype(np.int64))
    return codes


def coded_bits(frequencies: Array, lengths: Bytes) -> int:
    """Bits of a stream of so many symbols of each kind."""
    return int(np.asarray(frequencies, np.int64) @ lengths.astype(np.int64))


def coded_bytes(bits: int) -> int:
    """Bytes of a stream of `bits` bits."""
    return -(-bits // WORD) * WORD // 8


def block_count(symbols: int) -> int:
    """Blocks of a stream of `symbols` symbols."""
    return -(-symbols // BLOCK)


def encode_symbols(symbols: Codes, lengths: Bytes) -> tuple[Words, NDArray[np.uint16]]:
    """A stream of codes without gaps.

    Args:
        symbols: any shape, read in C order; each with a code.
        lengths: bits of each symbol's code.

    Returns:
        The stream, and the bits of each block of `BLOCK` symbols [blocks].

    Raises:
        ValueError: a symbol without a code.
    """
    longest = int(lengths.max(initial=1))
    columns = np.arange(longest)
    shifts = (lengths[:, None].astype(np.int64) - 1 - columns).clip(0)
    digits = (canonical_codes(lengths)[:, None] >> shifts & 1).astype(np.uint8)
    present = columns < lengths[:, None]
    blocks, total = [np.empty(0, np.uint16)], 0
    for piece in pieces(symbols, size=_PIECE):
        each = lengths[piece]
        if piece.size and not each.all():
            raise ValueError("a symbol has no code")
        blocks.append(np.add.reduceat(each, np.arange(0, each.size, BLOCK), dtype=np.uint16))
        total += int(blocks[-1].sum(dtype=np.int64))
    stream, carry = [np.empty(0, np.uint16)], np.zeros(-total % WORD, np.uint8)
    for piece in pieces(symbols, size=_PIECE):
        bits = np.concatenate([carry, digits[piece][present[piece]]])
        whole = bits.size // WORD * WORD
        stream.append(np.packbits(bits[:whole]).view(">u2").astype(np.uint16))
        carry = bits[whole:]
    return np.concatenate(stream), np.concatenate(blocks)


def decode_symbols(stream: Words, blocks: NDArray[np.uint16], lengths: Bytes, count: int) -> Codes:
    """The first `count` symbols of a stream, one after another: slow, to check others by.

    Raises:
        ValueError: the stream ends before, or holds bits that are no code.
    """
    known = {(int(lengths[s]), int(code)): s for s, code in enumerate(canonical_codes(lengths)) if lengths[s]}
    symbols = np.empty(count, smallest_unsigned(lengths.size))
    bits = np.unpackbits(stream.astype(">u2").view(np.uint8))
    found, length, code = 0, 0, 0
    for bit in bits[bits.size - int(blocks.sum(dtype=np.int64)) :]:
        if found == count:
            break
        length, code = length + 1, code << 1 | int(bit)
        if (length, code) in known:
            symbols[found] = known[length, code]
            found, length, code = found + 1, 0, 0
    if found < count:
        raise ValueError(f"the stream holds {found} symbols, not {count}")
    return symbols
