"""Buckets by hash: the hash itself, and what buckets hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels import hashing
from onnxpress.passes.kernels.hashing import bucket_means, hashes, spread

WORDS = st.integers(0, 2**32 - 1)


def xxhash32(words, seed):
    """Of up to three words, as its specification says, one number at a time."""
    mixed = seed + 374761393 + 4 * len(words)
    for word in words:
        mixed = (mixed + word * 3266489917) % 2**32
        mixed = ((mixed << 17 | mixed >> 15) % 2**32) * 668265263 % 2**32
    mixed %= 2**32
    mixed = (mixed ^ mixed >> 15) * 2246822519 % 2**32
    mixed = (mixed ^ mixed >> 13) * 3266489917 % 2**32
    return mixed ^ mixed >> 16


def test_the_reference_is_xxhash32():
    assert xxhash32([], 0) == 0x02CC5D05  # published for nothing


@given(WORDS, WORDS, WORDS)
def test_is_xxhash32_of_row_and_column(row, column, seed):
    found = hashes(np.uint32([[row]]), np.uint32([column]), seed=seed)
    assert found.dtype == np.uint32
    assert found.tolist() == [[xxhash32([row, column], seed)]]


def test_spreads_evenly():
    dense = spread(np.arange(16), (500, 320))
    counts = np.bincount(dense.reshape(-1), minlength=16)
    assert abs(counts - 10000).max() < 500  # five standard deviations of a fair draw
    assert (dense[0] != dense[1]).any()


@given(st.integers(1, 9), st.integers(0, 99))
def test_values_are_the_least_squares_of_each_bucket(buckets, seed):
    rows, weights = np.random.default_rng(seed).random((2, 9, 7))
    numbers = spread(np.arange(buckets), rows.shape, seed=seed)
    for given_weights in (None, weights):
        means = bucket_means(rows, buckets, seed=seed, weights=given_weights)
        heavy = np.ones_like(rows) if given_weights is None else given_weights
        for bucket in range(buckets):
            own = numbers == bucket
            wanted = np.average(rows[own], weights=heavy[own]) if own.any() else 0
            assert means[bucket] == pytest.approx(wanted, rel=1e-12)


def test_works_in_pieces(monkeypatch):
    rows = np.random.default_rng(0).random((9, 7))
    means, dense = bucket_means(rows, 5), spread(np.arange(5), rows.shape)
    monkeypatch.setattr(hashing, "PIECE", 14)
    np.testing.assert_allclose(bucket_means(rows, 5), means, rtol=1e-12)  # summed in another order
    np.testing.assert_array_equal(spread(np.arange(5), rows.shape), dense)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="0 buckets for weights"):
        bucket_means(np.ones((2, 2)), 0)
    with pytest.raises(ValueError, match=r"importance \[2\] does not belong to weights \[2, 2\]"):
        bucket_means(np.ones((2, 2)), 2, weights=np.ones(2))
    with pytest.raises(ValueError, match="cannot share values that are not finite"):
        bucket_means(np.full((2, 2), np.inf), 2)
