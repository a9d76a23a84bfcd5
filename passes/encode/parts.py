"""A weight taken apart as a plan says; arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.encode.plans import GAP_BITS, HUFFMAN, PLANES, Plan, stream_unit
from onnxpress.passes.kernels.arrays import Array, Codes, bits_of, pieces, smallest_unsigned
from onnxpress.passes.kernels.huffman import LONGEST, code_lengths, code_order, codes_of_length, encode_symbols
from onnxpress.passes.kernels.packing import distinct, look_up, pack_codes, pack_gaps, pack_mask, tally


@dataclass(frozen=True, slots=True)
class Stream:
    """Listed elements.

    Attributes:
        stored: the elements, narrower ones, or their codes (packed where below 8 bits, or a stream of Huffman codes).
        book: what the codes stand for; padded to the number of codes of 1, 2 or 4 bits. None without codes.
        high: the higher bits of codes of 3, 5, 6 or 7 bits, packed, the lowest of them first.
        blocks: for Huffman codes, the bits of each block.
        lengths: for Huffman codes, how many there are of each length; the book is in their order.
    """

    stored: Array
    book: Array | None = None
    high: tuple[Array, ...] = ()
    blocks: Array | None = None
    lengths: Array | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What is stored of a weight.

    Attributes:
        stream: the listed elements.
        mask: packed bits, least significant first; None for other layouts.
        gaps: steps, two in a byte where they have 4 bits; the first counts from element 0.
        rest: elements at the end that would not fill a byte, of a mask or of plain codes.
        steps: the same as `gaps`, with Huffman codes.
        count: entries of the streams.
    """

    stream: Stream
    mask: Array | None = None
    gaps: Array | None = None
    rest: Array | None = None
    steps: Stream | None = None
    count: int = 0


def take_apart(weight: Array, plan: Plan) -> Parts:
    """Store `weight` as `plan` says.

    Raises:
        ValueError: the plan does not fit the weight.
    """
    if plan.layout == "fill":
        return Parts(Stream(weight.reshape(-1)[:1]))
    if plan.layout == "plain":
        if not isinstance(plan.coding, int) or plan.coding == 8:
            return Parts(_stream(weight, plan))
        body, rest = _split(weight, stream_unit(plan))
        return Parts(_stream(body, plan), rest=rest)
    if plan.layout == "mask":
        body, rest = _split(weight, 8)
        mask, values = pack_mask(body)
        values = _padded(values, stream_unit(plan))
        return Parts(_stream(values, plan), mask=mask, rest=rest, count=values.size)
    if plan.layout == "gaps":
        steps, values = _filled(*pack_gaps(weight, plan.steps), weight.size, stream_unit(plan))
        steps[0] -= 1
        return Parts(_stream(values, plan), steps=_coded(steps), count=steps.size)
    bits = GAP_BITS[plan.layout]
    steps, values = _filled(*pack_gaps(weight, bits), weight.size, stream_unit(plan))
    steps[0] -= 1
    gaps = steps if bits == 8 else pack_codes(steps, bits)
    return Parts(_stream(values, plan), gaps=gaps, count=steps.size)


def narrower(weight: Array, dtypes: tuple[np.dtype, ...]) -> tuple[np.dtype, ...]:
    """Those of `dtypes` that hold every element of `weight` exactly; none if there is a NaN, whose bits may change."""
    left = list(dtypes)
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in pieces(weight):
            if not left or np.isnan(piece.astype(np.float64)).any():
                return ()
            bits = bits_of(piece)
            left = [d for d in left if np.array_equal(bits_of(piece.astype(d).astype(weight.dtype)), bits)]
    return tuple(left)


def _stream(values: Array, plan: Plan) -> Stream:
    if plan.coding is None:
        return Stream(values)
    if plan.coding == HUFFMAN:
        return _coded(values)
    if not isinstance(plan.coding, int):
        return Stream(values.astype(plan.coding))
    book = distinct(values, 1 << plan.coding)
    if book is None:
        raise ValueError(f"more than {1 << plan.coding} distinct elements")
    codes = look_up(values, book)
    if plan.coding == 8:
        return Stream(codes, book)
    low, *high = PLANES[plan.coding]
    if high:
        parts, shift = [], 0
        for bits in (low, *high):
            parts.append(pack_codes(codes >> codes.dtype.type(shift) & codes.dtype.type((1 << bits) - 1), bits))
            shift += bits
        return Stream(parts[0], book, tuple(parts[1:]))
    padded = np.zeros(1 << plan.coding, book.dtype)
    padded[: book.size] = book
    return Stream(pack_codes(codes, plan.coding), padded)


def _coded(values: Array) -> Stream:
    """Huffman codes.

    Raises:
        ValueError: there are more distinct elements than codes.
    """
    found = tally(values, 1 << LONGEST)
    if found is None:
        raise ValueError(f"more than {1 << LONGEST} distinct elements")
    book, counts = found
    if book.size == 1:  # the decoder wants every window to begin with a code
        lengths, order = np.ones(2, np.uint8), np.zeros(2, np.int64)
    else:
        lengths = code_lengths(counts)
        order = code_order(lengths)
    stored, blocks = encode_symbols(look_up(values, book), lengths)
    return Stream(stored, book[order], blocks=blocks, lengths=_narrowed(codes_of_length(lengths)))


def _narrowed(counts: Codes) -> Codes:
    return counts.astype(smallest_unsigned(int(counts.max()) + 1))


def _split(weight: Array, unit: int) -> tuple[Array, Array | None]:
    """Flat elements that fill whole bytes, and those left over."""
    flat = weight.reshape(-1)
    end = flat.size // unit * unit
    return flat[:end], flat[end:].copy() if end < flat.size else None


def _padded(values: Array, unit: int) -> Array:
    """Values up to a multiple of `unit`, at least one; nothing refers to the last ones."""
    more = -values.size % unit if values.size else unit
    return np.concatenate([values, np.repeat(values[:1] if values.size else np.zeros(1, values.dtype), more)])


def _filled(steps: Codes, values: Array, size: int, unit: int) -> tuple[Codes, Array]:
    """Relative indices up to a multiple of `unit`, by stopping on more of the zeros in between.

    Raises:
        ValueError: there are not as many zeros.
    """
    for _ in range(-steps.size % unit):
        longer = np.flatnonzero(steps > 1)[:1]
        if longer.size:
            at = int(longer[0])
            steps[at] -= 1
        elif int(steps.sum(dtype=np.int64)) < size:
            at = steps.size
        else:
            raise ValueError("too few zeros to fill the last byte")
        steps, values = np.insert(steps, at, 1), np.insert(values, at, np.zeros(1, values.dtype))
    return steps, values
