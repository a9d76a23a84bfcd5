import heapq
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.huffman import (
    BLOCK,
    block_count,
    canonical_codes,
    code_lengths,
    code_order,
    coded_bits,
    coded_bytes,
    codes_of_length,
    decode_symbols,
    encode_symbols,
)

modest = settings(deadline=None, derandomize=True, max_examples=80)
counts = st.lists(st.integers(0, 1000) | st.integers(0, 3), min_size=1, max_size=40).map(np.array)


def huffman_bits(frequencies):
    """Bits of the best code without a limit: the sum of all merged weights."""
    heap = [int(f) for f in frequencies if f]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    return total


def best_limited_bits(frequencies, limit):
    """The same with a limit, by trying every number of codes of each length; longer codes for rarer symbols."""
    wanted = sorted((int(f) for f in frequencies), reverse=True)

    def search(at, length, room):
        if at == len(wanted):
            return 0
        if length > limit:
            return float("inf")
        options = [search(at, length + 1, 2 * room)]
        cost = 0
        for taken in range(1, min(room, len(wanted) - at) + 1):
            cost += wanted[at + taken - 1] * length
            options.append(cost + search(at + taken, length + 1, 2 * (room - taken)))
        return min(options)

    return search(0, 1, 2)


@modest
@given(counts)
def test_lengths_are_optimal_where_the_limit_is_slack(frequencies):
    lengths = code_lengths(frequencies, limit=15)
    if (frequencies > 0).sum() > 1 and frequencies.sum() < 1597:  # too few for a code of more than 15 bits
        assert coded_bits(frequencies, lengths) == huffman_bits(frequencies)


@modest
@given(st.lists(st.integers(1, 500), min_size=2, max_size=9), st.integers(0, 2))
def test_lengths_are_optimal_under_a_tight_limit(frequencies, slack):
    limit = (len(frequencies) - 1).bit_length() + slack
    lengths = code_lengths(np.array(frequencies), limit=limit)
    assert lengths.max() <= limit
    assert coded_bits(np.array(frequencies), lengths) == best_limited_bits(frequencies, limit)


@modest
@given(counts, st.integers(6, 12))
def test_every_bit_pattern_begins_with_one_code(frequencies, limit):
    lengths = code_lengths(frequencies, limit=limit)
    present = lengths[lengths > 0].astype(int)
    np.testing.assert_array_equal(lengths > 0, frequencies > 0)
    assert lengths.max(initial=0) <= limit
    if present.size > 1:
        assert (1 << (limit - present)).sum() == 1 << limit


@modest
@given(counts)
def test_rarer_symbols_have_no_shorter_codes(frequencies):
    lengths = code_lengths(frequencies, limit=6)[np.argsort(frequencies, kind="stable")]
    assert (np.diff(lengths[lengths > 0].astype(int)) <= 0).all()


def test_fibonacci_frequencies_meet_the_limit():
    frequencies = [1, 1]
    while len(frequencies) < 40:
        frequencies.append(frequencies[-1] + frequencies[-2])
    assert code_lengths(np.array(frequencies)).max() == 12


@modest
@given(counts)
def test_codes_are_canonical(frequencies):
    lengths = code_lengths(frequencies)
    order, codes = code_order(lengths), canonical_codes(lengths)
    written = [format(codes[s], f"0{lengths[s]}b") for s in order]
    assert written == sorted(written)
    assert not any(b.startswith(a) for a, b in pairwise(written))
    assert codes_of_length(lengths).sum() == len(order)


@modest
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(0, 3 * BLOCK))
def test_symbols_come_back(seed, kinds, size):
    random = np.random.default_rng(seed)
    symbols = random.choice(kinds, size, p=random.dirichlet(np.full(kinds, 0.3))).astype(np.uint8)
    frequencies = np.bincount(symbols, minlength=kinds)
    lengths = code_lengths(frequencies)
    stream, blocks = encode_symbols(symbols, lengths)
    np.testing.assert_array_equal(decode_symbols(stream, blocks, lengths, size), symbols)
    assert stream.nbytes == coded_bytes(coded_bits(frequencies, lengths))
    assert blocks.size == block_count(size)
    assert blocks.tolist() == [lengths[symbols[i : i + BLOCK]].sum() for i in range(0, size, BLOCK)]


def test_pieces_join_without_a_gap():
    symbols = np.random.default_rng(0).choice(5, (1 << 17) + 999, p=[0.6, 0.2, 0.1, 0.07, 0.03]).astype(np.uint8)
    lengths = code_lengths(np.bincount(symbols))
    stream, blocks = encode_symbols(symbols, lengths)
    np.testing.assert_array_equal(decode_symbols(stream, blocks, lengths, symbols.size), symbols)
    assert blocks.sum(dtype=int) == lengths[symbols].sum(dtype=int)


def test_takes_little_more_than_the_entropy():
    random = np.random.default_rng(0)
    symbols = np.clip(np.round(random.standard_normal(100_000) * 2 + 8), 0, 15).astype(np.uint8)
    share = np.bincount(symbols) / symbols.size
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum() * symbols.size / 8
    stream, blocks = encode_symbols(symbols, code_lengths(np.bincount(symbols)))
    assert entropy <= stream.nbytes <= stream.nbytes + blocks.nbytes <= 1.03 * entropy


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: code_lengths(np.array([1, -1])), "negative"),
        (lambda: code_lengths(np.ones(5), limit=2), "5 symbols have no codes of at most 2 bits"),
        (lambda: code_lengths(np.ones(5), limit=16), "not in 1..15"),
        (lambda: encode_symbols(np.array([0, 1], np.uint8), np.array([1, 0], np.uint8)), "has no code"),
        (
            lambda: decode_symbols(np.zeros(1, np.uint16), np.array([8], np.uint16), np.array([1, 1], np.uint8), 9),
            "holds 8 symbols",
        ),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
