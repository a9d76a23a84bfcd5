import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from onnxpress.passes.kernels.transforms import cosine, fourier, hadamard, halves, permuted, walsh


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_the_matrix_of_hadamard_is_scipys_and_a_product_of_smaller_ones(size):
    found = hadamard(size)
    np.testing.assert_array_equal(found, scipy.linalg.hadamard(size))
    first, second = halves(size)
    assert first * second == size
    assert first in (second, 2 * second)
    np.testing.assert_array_equal(found, np.kron(hadamard(first), hadamard(second)))
    rows = np.random.default_rng(0).standard_normal((3, size))
    np.testing.assert_allclose(walsh(size).times(rows), rows @ found / np.sqrt(size), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(walsh(size).turned(walsh(size).times(rows)), rows, rtol=1e-12, atol=1e-12)


def test_the_cosine_transform_is_orthogonal_and_the_second():
    forth = cosine().times(np.eye(7))
    np.testing.assert_allclose(forth @ np.ones(7), scipy.fft.dct(np.ones(7), norm="ortho"), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(cosine().turned(forth), np.eye(7), rtol=1e-12, atol=1e-12)


def test_a_permutation_moves_rows_as_told():
    order, rows = np.array([2, 0, 1]), np.arange(6.0).reshape(2, 3)
    matrix = permuted(order).times(np.eye(3))
    np.testing.assert_array_equal(matrix @ np.arange(3), order)
    np.testing.assert_array_equal(permuted(order).times(rows), rows @ matrix)
    np.testing.assert_array_equal(permuted(order).turned(rows), rows @ matrix.T)


@pytest.mark.parametrize("size", [2, 4, 10])
def test_real_pairs_are_the_fourier_transform(size):
    random = np.random.default_rng(0)
    seen = random.standard_normal(size)
    found, wanted = np.einsum("t,tfc->fc", seen, fourier(size)), np.fft.rfft(seen)
    np.testing.assert_allclose(found[1:, 0] + 1j * found[1:, 1], wanted[1:-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[0], [wanted[0].real, wanted[-1].real], rtol=1e-12, atol=1e-12)


def test_refuses_sizes_without_a_transform():
    with pytest.raises(ValueError, match="take a power of two"):
        hadamard(6)
    with pytest.raises(ValueError, match="take an even number"):
        fourier(5)
