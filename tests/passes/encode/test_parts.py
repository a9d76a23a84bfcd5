import ml_dtypes
import numpy as np
import pytest

from onnxpress.passes.encode.parts import narrower, take_apart
from onnxpress.passes.encode.plans import Plan
from onnxpress.passes.kernels.huffman import BLOCK, decode_symbols

HALF, BRAIN, SINGLE = (np.dtype(d) for d in ("float16", ml_dtypes.bfloat16, "float32"))


def decoded(stream, count):
    lengths = np.repeat(np.arange(1, 13, dtype=np.uint8), stream.lengths)
    return stream.book[decode_symbols(stream.stored, stream.blocks, lengths, count)]


def test_narrower_types_hold_every_element():
    assert narrower(np.array([1, 0.5, -2.25, 1e-7 * 0, 65504], np.float32), (HALF, BRAIN)) == (HALF,)
    assert narrower(np.array([1, 3e38], ml_dtypes.bfloat16).astype(np.float32), (HALF, BRAIN)) == (BRAIN,)
    assert narrower(np.array([1.1], np.float32), (HALF, BRAIN)) == ()
    assert narrower(np.array([0.1], np.float32).astype(np.float64), (SINGLE, HALF)) == (SINGLE,)


def test_a_nan_is_not_narrowed():
    assert narrower(np.array([1, np.nan], np.float32), (HALF,)) == ()


def test_negative_zero_is_narrowed_with_its_sign():
    assert narrower(np.array([-0.0], np.float32), (HALF,)) == (HALF,)
    assert np.signbit(take_apart(np.array([-0.0], np.float32), Plan("plain", HALF)).stream.stored).all()


def test_first_gap_counts_from_element_zero_and_last_byte_is_filled_with_zeros_between():
    array = np.zeros(100, np.float32)
    array[[0, 20, 21]] = [1, 2, 3]
    parts = take_apart(array, Plan("gaps8", 1 << 3))
    assert list(np.cumsum(parts.gaps)) == [0, 20, 21]
    parts = take_apart(array, Plan("gaps8", 4))
    assert list(np.cumsum(parts.gaps)) == [0, 1, 20, 21]


def test_zeros_after_the_last_element_fill_the_byte_too():
    array = np.array([1, 2, 3, 0, 0], np.float32)
    assert list(np.cumsum(take_apart(array, Plan("gaps8", 4)).gaps)) == [0, 1, 2, 3]


def test_huffman_codes_hold_the_values_and_the_gaps():
    array = np.zeros(3000, np.float32)
    array[::3], array[1::7] = 2, 5
    parts = take_apart(array, Plan("gaps", "huffman", 2))
    steps, values = (decoded(stream, parts.count) for stream in (parts.steps, parts.stream))
    back = np.zeros_like(array)
    back[np.cumsum(steps, dtype=int)] = values
    np.testing.assert_array_equal(back, array)
    assert parts.stream.blocks.size == -(-parts.count // BLOCK)


def test_a_single_value_has_a_code_of_one_bit():
    array = np.zeros(100, np.float32)
    array[::10] = 3
    stream = take_apart(array, Plan("mask", "huffman")).stream
    assert (list(stream.book), list(stream.lengths), stream.stored.size) == ([3, 3], [2] + [0] * 11, 1)


def test_refuses_plans_that_do_not_fit():
    with pytest.raises(ValueError, match="more than 4 distinct"):
        take_apart(np.arange(8, dtype=np.float32), Plan("plain", 2))
    with pytest.raises(ValueError, match="more than 4096 distinct"):
        take_apart(np.arange(5000, dtype=np.float32), Plan("plain", "huffman"))
    with pytest.raises(ValueError, match="too few zeros"):
        take_apart(np.array([1, 1, 1], np.float32), Plan("gaps4"))


def test_does_not_write_into_the_weight():
    array = np.arange(64, dtype=np.float32) % 5
    array.flags.writeable = False
    for plan in (
        Plan("plain", 4),
        Plan("mask"),
        Plan("gaps4", 4),
        Plan("gaps8"),
        Plan("plain", HALF),
        Plan("gaps", "huffman", 3),
    ):
        take_apart(array, plan)
