import ml_dtypes
import numpy as np
import pytest

from onnxpress.passes.kernels.arrays import ascending, bits_of, magnitudes, pieces, smallest_unsigned


def test_pieces_cover_an_array_that_is_not_contiguous_in_c_order():
    array = np.arange(30).reshape(5, 6).T
    np.testing.assert_array_equal(np.concatenate(list(pieces(array, size=7))), array.reshape(-1))


def test_pieces_of_contiguous_arrays_are_views():
    array = np.zeros((4, 5), np.float32)
    assert all(np.shares_memory(piece, array) for piece in pieces(array, size=6))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_pieces_of_scalars_and_empty_arrays(shape):
    assert sum(piece.size for piece in pieces(np.zeros(shape))) == np.zeros(shape).size


def test_magnitudes_leave_their_input_alone():
    array = np.array([-1.0, 2.0])
    np.testing.assert_array_equal(magnitudes(array), [1, 2])
    np.testing.assert_array_equal(array, [-1, 2])


@pytest.mark.parametrize("dtype", [np.int64, np.float16, ml_dtypes.bfloat16, np.float64])
def test_ascending_leaves_each_value_once(dtype):
    values = np.array([3, -1, 0, 3, 2, -1, -0.0, 2], dtype)
    np.testing.assert_array_equal(ascending(values).astype(float), [-1, 0, 2, 3])
    assert ascending(values[:0]).size == 0


def test_float16_values_are_in_order_where_few_are_distinct():
    random = np.random.default_rng(1)
    for size in range(1500, 4500, 10):
        values = -random.random(3).astype(np.float16)
        found = ascending(values[random.integers(0, 3, size)])
        np.testing.assert_array_equal(found, sorted({float(each) for each in values}))


def test_bits_tell_zeros_apart():
    assert list(bits_of(np.array([0.0, -0.0], ml_dtypes.bfloat16))) == [0, 0x8000]


@pytest.mark.parametrize(
    ("count", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4"), (2**33, "u8")]
)
def test_smallest_unsigned_numbers_from_zero(count, dtype):
    assert smallest_unsigned(count) == np.dtype(dtype)
