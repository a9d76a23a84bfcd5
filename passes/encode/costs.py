"""What a plan would take in the file, from what is known of the weight alone."""

from __future__ import annotations

import functools

import numpy as np

from onnxpress.passes.encode.plans import GAP_BITS, HUFFMAN, PLANES, Facts, Plan, entries, stream_unit
from onnxpress.passes.kernels.arrays import Array, smallest_unsigned
from onnxpress.passes.kernels.huffman import (
    LONGEST,
    block_count,
    code_lengths,
    coded_bits,
    coded_bytes,
    codes_of_length,
)
from onnxpress.passes.kernels.packing import packed_bytes

TENSOR = 18
"""Bytes of a tensor's name (one or two letters), dtype, sizes and tags."""
CALL = 24
"""Bytes of a call of a decoding function: its name and domain, the name of its result, tags."""
ARGUMENT = 4
"""Bytes of the name of an input."""
NAMED = 24
"""Bytes of the name of a weight (about 8), its dtype and tags, where they are declared."""
_FORM = 8
"""What a sparse initializer takes besides, in tags and sizes."""


def cost(facts: Facts, plan: Plan) -> tuple[int, set[str]]:
    """Bytes of a weight in the file, and the names of what the model stores once for all."""
    shape = TENSOR + 8 * facts.rank
    if plan.layout == "fill":
        return CALL + 2 * ARGUMENT + TENSOR + facts.dtype.itemsize + shape + _declaration(facts), {"Fill"}
    if plan.layout == "sparse":
        survey = facts.survey
        return NAMED + _FORM + 3 * facts.rank + survey.nonzeros * facts.dtype.itemsize + survey.place_bytes, set()
    listed, needs = _stream_cost(facts, plan)
    nbytes = listed + _declaration(facts)
    zero = f"zero {facts.dtype.name}"
    if plan.layout == "mask":
        nbytes += CALL + 7 * ARGUMENT + TENSOR + packed_bytes(facts.survey.count, 1) + shape
        needs |= {"Mask", "Ranks", "Digits", "digits 1", zero}
        if facts.survey.count % 8:
            nbytes += _join_cost(facts, facts.survey.count % 8)
            needs |= {"Join"}
    if plan.step_bits is not None:
        nbytes += CALL + 4 * ARGUMENT + shape
        needs |= {"Gaps", zero}
        nbytes += _steps_cost(facts, plan, needs)
    return nbytes, needs


def step_frequencies(facts: Facts, plan: Plan) -> Array:
    """How often each step occurs, the first of them counted from element 0: [2^bits]."""
    bits = plan.step_bits or 0
    found = facts.survey.step_counts(bits)
    first = min(facts.survey.first, (1 << bits) - 1)
    found[first] -= 1
    found[first - 1] += 1
    return found


def value_frequencies(facts: Facts, plan: Plan) -> Array:
    """How often each distinct element is listed.

    Raises:
        ValueError: there are too many distinct elements for that to be known.
    """
    values, counts = facts.survey.values, facts.survey.counts
    if values is None or counts is None:
        raise ValueError("the distinct elements are not known")
    if plan.layout == "plain":
        return counts
    zeros = facts.survey.count - facts.survey.nonzeros
    fillers = entries(facts, plan) - facts.survey.nonzeros
    # zero, if there is one, comes first
    return np.concatenate([[fillers], counts[1:] if zeros else counts]).astype(np.int64)


def _steps_cost(facts: Facts, plan: Plan, needs: set[str]) -> int:
    if plan.layout == "gaps":
        needs |= {"Huffman"}
        # both streams have one shape
        shape = 0 if plan.coding == HUFFMAN else TENSOR + 8
        return _huffman_cost(step_frequencies(facts, plan), 1) + shape
    bits = GAP_BITS[plan.layout]
    if bits < 8:
        needs |= {"Codes", "Digits", f"digits {bits}", f"steps {bits}", "flat"}
    return TENSOR + packed_bytes(entries(facts, plan), bits) + (CALL + 4 * ARGUMENT) * (bits < 8)


def _huffman_cost(frequencies: Array, item: int) -> int:
    bits, symbols, alike = coded(frequencies)
    table = LONGEST * smallest_unsigned(alike + 1).itemsize + item * max(symbols, 2)
    tensors = coded_bytes(bits) + 2 * block_count(int(frequencies.sum())) + table
    return CALL + 5 * ARGUMENT + 4 * TENSOR + tensors


def coded(frequencies: Array) -> tuple[int, int, int]:
    """Bits of the best stream of Huffman codes, symbols that occur, and the most codes of one length."""
    return _code(frequencies.tobytes())


@functools.lru_cache(maxsize=64)
def _code(frequencies: bytes) -> tuple[int, int, int]:
    counts = np.frombuffer(frequencies, np.int64)
    lengths = code_lengths(counts)
    return coded_bits(counts, lengths), int((counts > 0).sum()), int(codes_of_length(lengths).max())


def _stream_cost(facts: Facts, plan: Plan) -> tuple[int, set[str]]:
    """Bytes of the listed elements."""
    count, item, coding = entries(facts, plan), facts.dtype.itemsize, plan.coding
    plain = plan.layout == "plain"
    if coding is None:
        return TENSOR + count * item, set()
    if coding == HUFFMAN:
        shape = TENSOR + 8 * (facts.rank if plain else 1)
        return _huffman_cost(value_frequencies(facts, plan), item) + shape, {"Huffman"}
    if not isinstance(coding, int):
        return CALL + ARGUMENT + TENSOR + count * coding.itemsize, {"Widen"}
    values = facts.survey.values
    distinct = 0 if values is None else values.size
    if coding == 8:
        return CALL + 2 * ARGUMENT + 2 * TENSOR + count + distinct * item, {"Lookup"}
    planes = PLANES[coding]
    packed = sum(CALL + 4 * ARGUMENT + TENSOR + packed_bytes(count, bits) for bits in planes)
    nbytes = packed + TENSOR + (item << coding if len(planes) == 1 else item * distinct)
    needs = {"Codes", "Digits", *(f"digits {bits}" for bits in planes)}
    for at in range(1, len(planes)):
        low = sum(planes[:at])
        nbytes += CALL + 3 * ARGUMENT
        needs |= {"Planes", f"steps {low}", f"high {planes[at]} {low}"}
    rest = count % stream_unit(plan)
    if not plain or rest:
        needs |= {"flat"}
    if plain:
        nbytes += TENSOR + 8 * facts.rank
    if plain and rest:
        nbytes += _join_cost(facts, rest)
        needs |= {"Join"}
    return nbytes, needs


def _join_cost(facts: Facts, rest: int) -> int:
    return CALL + 3 * ARGUMENT + TENSOR + rest * facts.dtype.itemsize


def _declaration(facts: Facts) -> int:
    """The dtype and shape that the graph goes on to declare."""
    return NAMED + 4 * facts.rank
