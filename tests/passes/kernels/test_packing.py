import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.arrays import bits_of, smallest_unsigned
from onnxpress.passes.kernels.packing import (
    distinct,
    look_up,
    pack_codes,
    pack_gaps,
    pack_mask,
    packed_bytes,
    survey,
)

modest = settings(deadline=None, derandomize=True, max_examples=80)
seeds = st.integers(0, 10_000)
kinds = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, np.uint8, np.int32]
dtypes = st.sampled_from(kinds)
shapes = st.sampled_from([(), (0,), (1,), (3, 0), (17,), (4, 5, 3), (40, 70)])


def sparse(seed, shape, dtype, levels=None):
    """Zeros of both signs, ties, and for floats two kinds of NaN."""
    rng = np.random.default_rng(seed)
    weight = np.asarray(rng.integers(-(levels or 100), (levels or 100) + 1, shape)).astype(dtype)
    weight[rng.random(shape) < seed % 11 / 10] = 0
    if weight.size > 10 and np.dtype(dtype).kind not in "iu":
        flat = weight.reshape(-1)
        flat[1], flat[3] = -0.0, np.nan
        flat[4:5].view(f"u{weight.itemsize}")[:] = flat[3:4].view(f"u{weight.itemsize}") ^ 1
    return weight


def same_bits(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert left.tobytes() == right.tobytes()


def unpack_codes(packed, bits, count):
    spread = np.unpackbits(packed, bitorder="little", count=count * bits).reshape(count, bits)
    return np.packbits(spread, axis=1, bitorder="little")[:, 0]


def unpack_mask(packed, values, shape):
    weight = np.zeros(shape, values.dtype)
    weight.reshape(-1)[np.flatnonzero(np.unpackbits(packed, bitorder="little"))] = values
    return weight


def unpack_gaps(steps, values, shape):
    weight = np.zeros(shape, values.dtype)
    weight.reshape(-1)[np.cumsum(steps, dtype=np.int64) - 1] = values
    return weight


@modest
@given(seed=seeds, bits=st.integers(1, 8), count=st.integers(0, 100))
def test_codes_come_back(seed, bits, count):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.size == packed_bytes(count, bits)
    np.testing.assert_array_equal(unpack_codes(packed, bits, count), codes)


@pytest.mark.parametrize("bits", [3, 4])
def test_codes_come_back_across_pieces(bits):
    codes = np.random.default_rng(0).integers(0, 1 << bits, (1 << 21) + 5).astype(np.uint8)
    np.testing.assert_array_equal(unpack_codes(pack_codes(codes, bits), bits, codes.size), codes)


def test_low_bits_come_first():
    np.testing.assert_array_equal(pack_codes(np.array([1, 2, 3], np.uint8), 4), [0x21, 0x03])
    np.testing.assert_array_equal(pack_codes(np.array([1, 2, 3, 0, 1], np.uint8), 2), [0b00111001, 1])
    np.testing.assert_array_equal(pack_codes(np.array([1, 0, 0, 1], np.uint8), 1), [0b1001])


@pytest.mark.parametrize(("bits", "dtype"), [(4, ml_dtypes.uint4), (2, ml_dtypes.uint2)])
def test_nibbles_and_pairs_lie_as_onnx_stores_them(bits, dtype):
    from onnx import numpy_helper

    codes = np.random.default_rng(0).integers(0, 1 << bits, 13).astype(np.uint8)
    stored = numpy_helper.from_array(codes.astype(dtype)).raw_data
    assert pack_codes(codes, bits).tobytes() == stored


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes, levels=st.integers(1, 60))
def test_a_codebook_gives_the_weight_back_bit_for_bit(seed, shape, dtype, levels):
    weight = sparse(seed, shape, dtype, levels)
    values = distinct(weight, 300)
    codes = look_up(weight, values)
    same_bits(values[codes] if weight.size else weight, weight)
    assert codes.dtype == smallest_unsigned(values.size)
    assert values.size == len({element.tobytes() for element in weight.reshape(-1)})
    if (weight.reshape(-1).view(f"u{weight.itemsize}") == 0).any():
        assert values[:1].tobytes() == bytes(weight.itemsize)


def test_distinct_gives_up_beyond_the_limit():
    weight = np.arange(300, dtype=np.float32).reshape(20, 15)
    assert distinct(weight, 299) is None
    np.testing.assert_array_equal(distinct(weight, 300), weight.reshape(-1))


def test_distinct_reads_on_over_pieces():
    weight = np.zeros((1 << 21) + 3, np.float32)
    weight[-1] = 1
    assert distinct(weight, 1) is None
    np.testing.assert_array_equal(distinct(weight, 2), [0, 1])


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes)
def test_a_bit_mask_gives_the_weight_back_bit_for_bit(seed, shape, dtype):
    weight = sparse(seed, shape, dtype)
    packed, values = pack_mask(weight)
    same_bits(unpack_mask(packed, values, shape), weight)
    assert packed.size == packed_bytes(weight.size, 1)


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes, bits=st.sampled_from([1, 3, 4, 8]))
def test_relative_indices_give_the_weight_back_bit_for_bit(seed, shape, dtype, bits):
    weight = sparse(seed, shape, dtype)
    steps, values = pack_gaps(weight, bits)
    same_bits(unpack_gaps(steps, values, shape), weight)
    assert steps.size == values.size
    assert not steps.size or 1 <= steps.min() <= steps.max() < 1 << bits


def test_long_ways_are_bridged_by_fillers():
    weight = np.zeros(40, np.float32)
    weight[[2, 35]] = [7, 8]
    steps, values = pack_gaps(weight, 4)
    np.testing.assert_array_equal(steps, [3, 15, 15, 3])
    np.testing.assert_array_equal(values, [7, 0, 0, 8])


def test_gaps_reach_across_pieces():
    weight = np.zeros((1 << 20) + 500, np.int8)
    weight[[5, (1 << 20) - 3, (1 << 20) + 400]] = 1
    for bits in (4, 8):
        same_bits(unpack_gaps(*pack_gaps(weight, bits), weight.shape), weight)


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes, levels=st.sampled_from([3, 100]), bits=st.sampled_from([1, 3, 4, 8]))
def test_a_survey_counts_what_the_codecs_write(seed, shape, dtype, levels, bits):
    weight = sparse(seed, shape, dtype, levels)
    counts = survey(weight, limit=8)
    assert counts.count == weight.size
    assert counts.nonzeros == pack_mask(weight)[1].size
    for step in (bits, 6):
        assert counts.entries(step) == pack_gaps(weight, step)[0].size
    values = distinct(weight, 8)
    assert (counts.values is None) == (values is None)
    if values is not None:
        same_bits(counts.values, values)
        np.testing.assert_array_equal(counts.counts, [(bits_of(weight) == bits_of(v)).sum() for v in values])
    found = pack_gaps(weight, bits)[0]
    np.testing.assert_array_equal(counts.step_counts(bits), np.bincount(found, minlength=1 << bits))
    assert counts.first == (np.flatnonzero(bits_of(weight)).min() + 1 if counts.nonzeros else 0)


def test_a_survey_counts_across_pieces():
    weight = np.zeros((1 << 20) + 500, np.int8)
    weight[[5, (1 << 20) - 3, (1 << 20) + 400]] = 1
    counts = survey(weight)
    assert counts.nonzeros == 3
    for step in (4, 8):
        assert counts.entries(step) == pack_gaps(weight, step)[0].size


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: pack_codes(np.array([4], np.uint8), 2), "needs more than 2 bits"),
        (lambda: pack_codes(np.array([0], np.uint8), 9), "bits must lie"),
        (lambda: pack_gaps(np.ones(3), 0), "bits must lie"),
        (lambda: look_up(np.array([1.0, 2.0]), np.array([1.0])), "not in the codebook"),
        (lambda: look_up(np.array([1.0]), np.zeros(0)), "not in the codebook"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
