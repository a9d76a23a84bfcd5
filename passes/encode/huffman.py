"""The local function that decodes a stream of Huffman codes with no loop, which ONNX Runtime would not fold.

Every bit of the stream is taken for the beginning of a code: the 12 bits from there on, its window, tell the length of
that code, and so where the next would begin. Bits at which no code begins lead to nonsense that nobody reads. The table
of next beginnings, read at its own entries, leads two codes on, then four, ... 2^DOUBLINGS. From the known beginning of
every block of symbols, all blocks at once, STEPS - 1 jumps with the last table and one with each of the others lead to
all beginnings; the windows there, to the symbols.

Positions count from the end of the stream, below zero: a jump beyond the end comes out at the beginning, which no
symbol that is wanted depends on, and all indices stay in range. Two bytes of zeros go before the stream, so that
every window lies within three bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from onnxpress.passes.kernels.huffman import BLOCK, LONGEST

DOUBLINGS = 6
STEPS = BLOCK >> DOUBLINGS

_ROOM = 1 << LONGEST
_WINDOWS = """
    none = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    byte = Constant <value = int32 {256}> ()
    all = Constant <value = int32 {%(room)d}> ()
    pad = Constant <value = int32[1] {0}> ()
    column = Constant <value = int64[2] {-1, 1}> ()
    flat = Constant <value = int64[1] {-1}> ()
    shifts = Constant <value = int32[8] {%(shifts)s}> ()
    third = Cast <to = 6> (stream)
    first = Concat <axis = 0> (pad, pad, third)
    second = Concat <axis = 0> (pad, third, pad)
    last = Concat <axis = 0> (third, pad, pad)
    high = Mul (first, byte)
    two = Add (high, second)
    higher = Mul (two, byte)
    three = Add (higher, last)
    rows = Reshape (three, column)
    shifted = Div (rows, shifts)
    cut = Mod (shifted, all)
    windows = Reshape (cut, flat)
"""
# of codes with l + 1 bits: `ends` is the window behind the last, `base` what is added to window / 2^(11 - l)
_TABLES = """
    rooms = Constant <value = int32[%(longest)d] {%(rooms)s}> ()
    bits = Constant <value = int32[%(longest)d] {%(bits)s}> ()
    number = Cast <to = 6> (lengths)
    cells = Mul (number, rooms)
    ends = CumSum (cells, none)
    begins = Sub (ends, cells)
    before = CumSum <exclusive = 1> (number, none)
    skipped = Div (begins, rooms)
    base = Sub (before, skipped)
    window = Range (none, all, one)
    each = Reshape (window, column)
    within = Less (each, ends)
    flags = Cast <to = 6> (within)
    level = ArgMax <axis = 1, keepdims = 0> (flags)
    length = Gather (bits, level)
    room = Gather (rooms, level)
    past = Div (window, room)
    offset = Gather (base, level)
    rank = Add (past, offset)
    value = Gather (book, rank)
"""
_JUMPS = """
    size = Size (windows)
    wide = Cast <to = 6> (size)
    start = Neg (wide)
    here = Range (start, none, one)
    step = Gather (length, windows)
    j0 = Add (here, step)
"""
_STARTS = """
    skip = Constant <value = int32 {16}> ()
    row = Constant <value = int64[2] {1, -1}> ()
    held = Cast <to = 6> (blocks)
    sums = CumSum <exclusive = 1> (held, none)
    origin = Add (start, skip)
    begin = Add (sums, origin)
    p0 = Reshape (begin, row)
"""
# axes: one of 2 for each doubling, the finest first; steps; blocks. Transpose turns them all round
_VALUES = """
    grid = Constant <value = int64[%(axes)d] {%(grid)s}> ()
    from = Constant <value = int64[1] {0}> ()
    parted = Reshape (a0, grid)
    turned = Transpose (parted)
    places = Reshape (turned, flat)
    count = ReduceProd <keepdims = 1> (shape)
    wanted = Slice (places, from, count)
    found = Gather (windows, wanted)
    values = Gather (value, found)
    W = Reshape (values, shape)
"""


def body() -> str:
    """The function in ONNX's textual form: (stream, blocks, lengths, book, shape) -> (W).

    stream: uint8, as `encode_symbols` gives it, with the bits of its blocks. lengths: uint16 [12], the number of codes
    of each length. book: what the codes stand for, in the order of the codes, for at least two. shape: of W.
    """
    places = [f"p{step}" for step in range(STEPS)]
    lines = [f"j{i + 1} = Gather (j{i}, j{i})" for i in range(DOUBLINGS)]
    lines.append(_STARTS)
    lines += [f"{after} = Gather (j{DOUBLINGS}, {at})" for at, after in pairwise(places)]
    lines.append(f"a{DOUBLINGS} = Concat <axis = 0> ({', '.join(places)})")
    for i in reversed(range(DOUBLINGS)):
        lines += [f"b{i} = Gather (j{i}, a{i + 1})", f"a{i} = Concat <axis = 0> (a{i + 1}, b{i})"]
    head = (_WINDOWS + _TABLES + _JUMPS) % {
        "room": _ROOM,
        "longest": LONGEST,
        "shifts": _listed(_ROOM >> bit for bit in range(8)),
        "rooms": _listed(_ROOM >> bits for bits in range(1, LONGEST + 1)),
        "bits": _listed(range(1, LONGEST + 1)),
    }
    tail = _VALUES % {"axes": DOUBLINGS + 2, "grid": _listed([*[2] * DOUBLINGS, STEPS, -1])}
    return f"(stream, blocks, lengths, book, shape) => (W) {{{head}{chr(10).join(lines)}{tail}}}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
