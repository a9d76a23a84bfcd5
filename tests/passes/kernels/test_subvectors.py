import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import subvectors
from onnxpress.passes.kernels.subvectors import find_codes, promising


def shared(rows, places, length, count, dtype="f4", seed=0):
    random = np.random.default_rng(seed)
    book = random.standard_normal((count, length)).astype(dtype)
    return book[random.integers(0, count, (rows, places))].reshape(rows, places * length)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(1, 40),
    st.sampled_from(["i1", "f2", "f4", "f8"]),
    st.booleans(),
)
def test_codes_give_the_matrix_back(rows, places, length, count, dtype, turned):
    matrix = shared(rows, places, length, count, dtype)
    if turned:
        matrix = np.asfortranarray(matrix)
    codes, vectors = find_codes(matrix, length)
    assert vectors[codes].reshape(matrix.shape).tobytes() == matrix.tobytes()
    bits = np.ascontiguousarray(matrix).view(f"u{matrix.itemsize}").reshape(-1, length)
    assert len(vectors) == len(np.unique(bits, axis=0)) == len(np.unique(codes))
    assert (np.diff(np.bincount(codes.reshape(-1))) <= 0).all()


def test_bits_tell_vectors_apart():
    matrix = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0]], np.float32)
    codes, vectors = find_codes(matrix, 2)
    assert codes.tolist() == [[0], [1], [0]]
    assert np.signbit(vectors[:, 0]).tolist() == [False, True]


def test_doubles_of_few_bits_are_told_apart():
    values = np.array([0.5, 1, 2, 4, -0.5, -1, -2, -4])
    matrix = np.stack(np.meshgrid(*[values] * 4), axis=-1).reshape(64, -1)
    codes, vectors = find_codes(matrix, 4)
    assert len(vectors) == 8**4
    np.testing.assert_array_equal(vectors[codes].reshape(matrix.shape), matrix)


def test_gives_up_beyond_the_limit():
    matrix = shared(200, 50, 2, 300)
    assert len(find_codes(matrix, 2, 300)[1]) == 300
    assert find_codes(matrix, 2, 299) is None


def test_never_trusts_a_mark(monkeypatch):
    monkeypatch.setattr(subvectors, "_marks", lambda rows, length: np.zeros(rows.size // length, np.uint64))
    assert find_codes(shared(20, 5, 2, 3), 2) is None


def test_works_piece_by_piece(monkeypatch):
    matrix = shared(90, 4, 3, 50)
    whole = find_codes(matrix, 3)
    monkeypatch.setattr(subvectors, "PIECE", 30)
    for one, other in zip(whole, find_codes(matrix, 3), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 256, subvectors.MOST])
def test_a_sample_shows_that_there_are_few(count):
    assert promising(shared(2000, 16, 2, count), 2)


@pytest.mark.parametrize("rows", [3, 2000])
def test_a_sample_shows_that_all_differ(rows):
    assert not promising(np.random.default_rng(0).standard_normal((rows, 32)), 4)
