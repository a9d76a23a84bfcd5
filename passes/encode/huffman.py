"""The local functions that decode a stream of Huffman codes with no loop, which ONNX Runtime would not fold.

Every bit of the stream is taken for the beginning of a code: the 12 bits from there on, its window, tell the length of
that code, and so where the next would begin. Bits at which no code begins lead to nonsense that nobody reads. The table
of next beginnings, read at its own entries, leads two codes on, read again at its own four. `Step` goes from the known
beginnings to four times as many, and from a table to that of jumps four times as far; from the beginning of every block
of symbols, all blocks at once, `STEPS` of them lead to all beginnings; the windows there, to the symbols.

Positions count from the end of the stream, below zero: a jump beyond the end comes out at the beginning, which no
symbol that is wanted depends on, and all indices stay in range. A row for each word holds its 16 bits and 12 of the
next, so the first row has what comes before the stream.

Codes of one length are consecutive and so are their windows: a window of a code of l bits is one of 2^(12-l), counts
2^l, and the sum of what comes before it, in units of 2^12, is the number of its code.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnxpress.passes.kernels.huffman import BLOCK, LONGEST, WORD

STEPS = (BLOCK.bit_length() - 1) // 2
LAST = STEPS - 1
"""Written out, for it needs no further table."""

STEP = """(jumps, places) => (further, more) {
    one = Gather (jumps, places)
    two = Gather (jumps, one)
    three = Gather (jumps, two)
    more = Concat <axis = 1> (places, one, two, three)
    double = Gather (jumps, jumps)
    further = Gather (double, double)
}"""
"""Beginnings of four times as many codes, [blocks, n] to [blocks, 4 n], and the table that leads four times as far."""

_WINDOWS = """
    pad = Constant <value = int32[1] {0}> ()
    none = Squeeze (pad)
    all = Constant <value = int32 {%(room)d}> ()
    one = Div (all, all)
    low = Constant <value = int32 {%(low)d}> ()
    shifts = Constant <value = int32[%(word)d] {%(shifts)s}> ()
    words = Cast <to = 6> (stream)
    this = Concat <axis = 0> (pad, words)
    next = Concat <axis = 0> (words, pad)
    high = Mul (this, all)
    begun = Div (next, low)
    both = Add (high, begun)
    rows = Flatten (both)
    shifted = Div (rows, shifts)
    cut = Mod (shifted, all)
    width = Shape (pad)
    flat = Neg (width)
    windows = Reshape (cut, flat)
"""
# a window lies behind the ends of all shorter codes: as many as its code has bits, less one
_TABLES = """
    rooms = Constant <value = int32[%(longest)d] {%(rooms)s}> ()
    number = Cast <to = 6> (lengths)
    cells = Mul (number, rooms)
    ends = CumSum (cells, none)
    column = Flatten (ends)
    window = Range (none, all, one)
    within = Less (window, column)
    flags = Where (within, none, one)
    ones = Div (rooms, rooms)
    level = MatMul (ones, flags)
    room = Gather (rooms, level)
    share = Div (all, room)
    sums = CumSum <exclusive = 1> (share, none)
    rank = Div (sums, all)
    value = Gather (book, rank)
"""
# a code of one bit has the level 0, so positions begin with 1
_JUMPS = """
    size = Size (windows)
    wide = Cast <to = 6> (size)
    start = Sub (one, wide)
    here = Range (start, one, one)
    step = Gather (level, windows)
    j0 = Add (here, step)
    held = Cast <to = 6> (blocks)
    sums2 = CumSum <reverse = 1> (held, none)
    begin = Neg (sums2)
    p0 = Flatten (begin)
"""
_VALUES = """
    second = Gather (j%(last)d, p%(last)d)
    third = Gather (j%(last)d, second)
    fourth = Gather (j%(last)d, third)
    every = Concat <axis = 1> (p%(last)d, second, third, fourth)
    places = Reshape (every, flat)
    count = ReduceProd (shape)
    from = Sub (count, count)
    wanted = Slice (places, from, count)
    found = Gather (windows, wanted)
    values = Gather (value, found)
    W = Reshape (values, shape)
"""


def body(domain: str) -> str:
    """The function in ONNX's textual form: (stream, blocks, lengths, book, shape) -> (W).

    stream: uint16, as `encode_symbols` gives it, with the bits of its blocks. lengths: uint16 [12], the number of codes
    of each length. book: what the codes stand for, in the order of the codes, for at least two. shape: of W.

    Args:
        domain: of `Step`.
    """
    lines = [f"j{i + 1}, p{i + 1} = {domain}.Step (j{i}, p{i})" for i in range(LAST)]
    room, word = 1 << LONGEST, 1 << WORD
    text = (_WINDOWS + _TABLES + _JUMPS + "\n".join(lines) + _VALUES) % {
        "room": room,
        "low": word // room,
        "word": WORD,
        "shifts": _listed(word >> bit for bit in range(WORD)),
        "longest": LONGEST,
        "rooms": _listed(room >> bits for bits in range(1, LONGEST + 1)),
        "last": LAST,
    }
    return f"(stream, blocks, lengths, book, shape) => (W) {{{text}}}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
