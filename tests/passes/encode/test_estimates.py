import numpy as np
import pytest

from onnxpress.passes.encode.estimates import coded_bytes, plain_bytes


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ([512] * 4, 2048 * 2 / 8),  # whole bits
        ([64], 0.0),  # the most frequent one is taken for zero
        ([1000, 0, 1000], 2000 / 8),
        ([700, 300, 300], (700 + 2 * 600 + 1300 / 64) / 8),  # Huffman codes of 1, 2 and 2 bits
        # gaps, and codes of one bit
        ([900, 50, 50], (1000 * 1.08 * -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)) + 100 + 100 / 64) / 8),
        ([], 0),
    ],
)
def test_symbols_take_huffman_codes_gaps_or_whole_bits(counts, wanted):
    assert coded_bytes(np.array(counts, np.int64)) == pytest.approx(wanted, rel=1e-9)


def test_a_weight_takes_least_of_dense_sparse_and_one_book():
    random = np.random.default_rng(0)
    noise = random.standard_normal((100, 100)).astype(np.float32)
    sparse = np.where(random.random((100, 100)) < 0.9, 0, noise)
    assert plain_bytes(noise) == noise.nbytes
    assert plain_bytes(sparse) == pytest.approx(1000 * 4 + 10000 * 0.47 / 8, rel=0.1)
    assert plain_bytes(random.choice(noise[0, :4], (100, 100))) == pytest.approx(10000 * 2 / 8 + 16, rel=1e-6)
