"""Lossless codecs of dense weights, and their sizes before anything is built.

Everything goes by the stored bits: -0.0 is not 0.0 here, and one NaN is not another. "Zero" is the element whose bits
are all zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Bits, Codes, bits_of, pieces, smallest_unsigned

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_SHORT = 4096
"""Distances below this are counted in a table."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes of `bits` bits without gaps."""
    return -(-count * bits // 8)


def pack_codes(codes: Codes, bits: int) -> Bytes:
    """Codes of `bits` bits one after another, least significant bit first.

    The first of two 4-bit codes is the low nibble and the first of four 2-bit codes the lowest pair, as ONNX stores
    uint4 and uint2; codes of 3, 5, 6 and 7 bits run across bytes.

    Args:
        codes: any shape, each below 2^bits.
        bits: 1 to 8.

    Returns:
        [ceil(size · bits / 8)], the last byte filled with zero bits.

    Raises:
        ValueError: `bits` out of range, or a code that needs more.
    """
    _check_bits(bits)
    packed = np.empty(packed_bytes(codes.size, bits), np.uint8)
    start = 0
    for piece in pieces(codes):  # of a multiple of 8 codes, so each fills whole bytes
        if (most := int(np.max(piece))) >> bits:
            raise ValueError(f"code {most} needs more than {bits} bits")
        spread = np.unpackbits(piece.astype(np.uint8)[:, None], axis=1, count=bits, bitorder="little")
        whole = np.packbits(spread, bitorder="little")
        packed[start : start + whole.size] = whole
        start += whole.size
    return packed


def distinct(weight: Array, limit: int) -> Array | None:
    """The distinct elements, by ascending bits; None once there are more than `limit`.

    Zero, if there is one, comes first. Reads no further than to the piece that exceeds `limit`.

    Args:
        weight: any shape and dtype.
        limit: at least 0.

    Returns:
        [at most limit] of the dtype of `weight`.
    """
    found = tally(weight, limit)
    return None if found is None else found[0]


def tally(weight: Array, limit: int) -> tuple[Array, Ints] | None:
    """The distinct elements as `distinct` gives them, and how often each occurs; None beyond `limit` of them.

    Returns:
        Elements [at most limit], and counts [as many].
    """
    known: Bits = np.empty(0, np.dtype(f"u{weight.dtype.itemsize}"))
    counts = np.empty(0, np.int64)
    for piece in _growing(weight):
        bits, more = _counted(bits_of(piece).reshape(-1), np.ones(piece.size, np.int64))
        known, counts = _counted(np.concatenate([known, bits]), np.concatenate([counts, more]))
        if known.size > limit:
            return None
    return known.view(weight.dtype), counts


def look_up(weight: Array, values: Array) -> Codes:
    """The index in `values`, as `distinct` returned them, of each element of `weight`.

    Returns:
        The shape of `weight` in the smallest unsigned dtype: `values[codes]` is `weight`, bit for bit.

    Raises:
        ValueError: an element that is not among `values`.
    """
    book = bits_of(values)
    codes = np.empty(weight.shape, smallest_unsigned(book.size))
    for source, target in zip(pieces(weight), pieces(codes), strict=True):
        bits = bits_of(source)
        place = np.searchsorted(book, bits)
        if not book.size or not np.array_equal(book[np.minimum(place, book.size - 1)], bits):
            raise ValueError("the weight holds an element that is not in the codebook")
        target[...] = place
    return codes


def pack_mask(weight: Array) -> tuple[Bytes, Array]:
    """Where the elements that are not zero lie, one bit each, and these elements in C order.

    Returns:
        Bits [ceil(size / 8)], least significant first as in `pack_codes`; values [nonzeros], the dtype of `weight`.
    """
    packed = np.empty(packed_bytes(weight.size, 1), np.uint8)
    kept, start = [np.empty(0, weight.dtype)], 0
    for piece in pieces(weight):
        present = bits_of(piece) != 0
        whole = np.packbits(present, bitorder="little")
        packed[start : start + whole.size] = whole
        start += whole.size
        kept.append(piece[present])
    return packed, np.concatenate(kept)


def pack_gaps(weight: Array, bits: int) -> tuple[Bytes, Array]:
    """Relative indices (Han et al., 2016, section 2): steps from one element that is not zero to the next.

    The first step counts from just before the first element, so every step is at least 1 and at most 2^bits − 1.
    A longer way is bridged by fillers: steps of 2^bits − 1 onto an element that is zero.

    Args:
        weight: any shape and dtype.
        bits: 1 to 8, usually 4 or 8.

    Returns:
        Steps [entries], not packed, and the elements they lead to [entries]: the running sum of the steps less 1 are
        the flat positions.
    """
    _check_bits(bits)
    most = (1 << bits) - 1
    steps, values = [np.empty(0, np.uint8)], [np.empty(0, weight.dtype)]
    for gaps, found in _gaps(weight):
        entries = (gaps - 1) // most + 1
        last = np.cumsum(entries) - 1
        step = np.full(int(entries.sum()), most, np.uint8)
        step[last] = gaps - (entries - 1) * most
        value = np.zeros(step.size, weight.dtype)
        value[last] = found
        steps.append(step)
        values.append(value)
    return np.concatenate(steps), np.concatenate(values)


@dataclass(frozen=True)
class Survey:
    """What the size of every encoding follows from.

    Attributes:
        count: elements.
        nonzeros: elements that are not zero.
        values: the distinct elements, by ascending bits; None where there are more than were asked for.
        counts: how often each of the distinct elements occurs; None where they are not known.
        gaps: distances from one element that is not zero to the next, from just before the first on, ascending; and
            how often each occurs.
        first: the first of these distances; 0 if there is none.
        place_bytes: what the positions of elements that are not zero take, of 7 bits a byte.
    """

    count: int
    nonzeros: int
    values: Array | None
    counts: Ints | None
    gaps: tuple[Ints, Ints]
    first: int
    place_bytes: int = 0

    def step_counts(self, bits: int) -> Ints:
        """How often each step occurs among those of `pack_gaps`: [2^bits]."""
        return self._step_counts[bits].copy()

    def entries(self, bits: int) -> int:
        """The entries of `pack_gaps` for a width of step in bits, 1 to 8."""
        return int(self._step_counts[bits].sum())

    @cached_property
    def _step_counts(self) -> dict[int, Ints]:
        """By width; so many plans are compared that counting anew for each would take most of the time."""
        return {bits: self._steps_of(bits) for bits in range(1, 9)}

    def _steps_of(self, bits: int) -> Ints:
        most = (1 << bits) - 1
        length, times = self.gaps
        entries = (length - 1) // most + 1
        found = np.zeros(most + 1, np.int64)
        np.add.at(found, length - (entries - 1) * most, times)
        found[most] += int(((entries - 1) * times).sum())
        return found


def survey(weight: Array, *, limit: int = 256) -> Survey:
    """Count what the encodings of `weight` would hold, in the memory of one piece.

    Args:
        weight: any shape and dtype.
        limit: distinct elements of interest.
    """
    # long distances are few, for they add up to the number of elements
    short, long, first, last, places = np.zeros(_SHORT, np.int64), [np.empty(0, np.int64)], 0, -1, 0
    for each, _ in _gaps(weight):
        first = first or int(each[0])
        at = last + np.cumsum(each)
        last, places = int(at[-1]), places + _place_bytes(at)
        short += np.bincount(each[each < _SHORT], minlength=_SHORT)
        long.append(each[each >= _SHORT])
    lengths = np.flatnonzero(short)
    beyond = np.unique(np.concatenate(long), return_counts=True)
    gaps = np.concatenate([lengths, beyond[0]]), np.concatenate([short[lengths], beyond[1]])
    values, counts = tally(weight, limit) or (None, None)
    return Survey(weight.size, int(gaps[1].sum()), values, counts, gaps, first, places)


def _place_bytes(places: Ints) -> int:
    """What ascending positions take, of 7 bits a byte."""
    longer = (1 << 7 * count for count in range(1, 9))
    return places.size + sum(places.size - int(np.searchsorted(places, each)) for each in longer)


def _gaps(weight: Array) -> Iterator[tuple[Ints, Array]]:
    """Distances between elements that are not zero, from just before the first on, and the elements, by pieces."""
    start, last = 0, -1
    for piece in pieces(weight):
        places = np.flatnonzero(bits_of(piece) != 0)
        if places.size:
            yield np.diff(places + start, prepend=last), piece[places]
            last = start + int(places[-1])
        start += piece.size


def _growing(weight: Array) -> Iterator[Array]:
    """Pieces, the first of them cut short: most weights show at once that they have many distinct elements."""
    size = PIECE >> 8
    for piece in pieces(weight):
        yield piece[:size]
        yield piece[size:]
        size = PIECE


def _counted(bits: Bits, times: Ints) -> tuple[Bits, Ints]:
    """Distinct ones in ascending order, and the sum of the times of each."""
    # np.unique hashes integers, many times slower than to sort them
    if (times == 1).all():
        ordered = np.sort(bits)
        starts = _beginnings(ordered)
        return ordered[starts], np.diff(starts, append=bits.size)
    order = np.argsort(bits)
    ordered = bits[order]
    starts = _beginnings(ordered)
    return ordered[starts], np.add.reduceat(times[order], starts) if starts.size else times


def _beginnings(ordered: Bits) -> Ints:
    """Where each run of equal elements begins."""
    first = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return np.flatnonzero(first)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must lie in 1..8, got {bits}")
