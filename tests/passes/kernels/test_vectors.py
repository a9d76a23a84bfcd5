"""Matrices of few sub-vectors: what k-means gives, and how close codes and codebooks come where a metric counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.kernels import vectors
from onnxpress.passes.kernels.vector_fits import reassign, refit
from onnxpress.passes.kernels.vectors import VectorCode, cluster, distinct_vectors

SHAPES = st.tuples(st.integers(2, 6), st.integers(1, 4), st.sampled_from([2, 4]), st.integers(1, 2), st.booleans())


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def moments(seed, groups, k):
    """Second moments of inputs that depend on each other."""
    rows = normal(seed, groups, 3 * k, k) @ normal(seed + 1, groups, k, k)
    return rows.transpose(0, 2, 1) @ rows / len(rows[0]) + 0.01 * np.eye(k)


def loss(code, target, metric):
    off = (code.decode() - target).reshape(len(metric), -1, target.shape[1])
    return float(np.einsum("grk,gkl,grl->", off, metric, off))


@given(SHAPES, st.integers(0, 99))
def test_both_steps_only_lower_the_error(shape, seed):
    rows, places, length, stages, by_place = shape
    target, metric = normal(seed, 4 * rows, places * length), moments(seed, 2, places * length)
    code = cluster(target, length=length, count=3, stages=stages, by_place=by_place, metric=metric, seed=seed)
    for step in (reassign, refit, reassign, refit):
        before, code = loss(code, target, metric), step(code, target, metric)
        assert loss(code, target, metric) <= before * (1 + 1e-9) + 1e-12


@given(SHAPES, st.integers(0, 99))
def test_equal_codes_are_equal_bits(shape, seed):
    rows, places, length, stages, by_place = shape
    matrix = normal(seed, rows, places * length).astype(np.float32)
    code = cluster(matrix, length=length, count=4, stages=stages, by_place=by_place, seed=seed)
    dense = code.decode(np.float32)
    assert dense.dtype == np.float32
    assert dense.shape == matrix.shape
    keys = {}
    for row, place in np.ndindex(rows, places):
        key = (place if by_place else 0, *code.codes[:, row, place])
        bits = dense[row, place * length : (place + 1) * length].tobytes()
        assert keys.setdefault(key, bits) == bits


@pytest.mark.parametrize("by_place", [False, True])
def test_the_codebooks_of_given_codes_are_the_best(by_place):
    """Against the equations written out: W is linear in the codebook."""
    target, metric = normal(0, 12, 8), moments(1, 2, 8)
    start = cluster(target, length=2, count=3, by_place=by_place, metric=metric)
    found = refit(start, target, metric, iterations=200)
    columns = []
    for entry in range(start.books.size):
        unit = np.zeros(start.books.size)
        unit[entry] = 1
        columns.append(VectorCode(unit.reshape(start.books.shape), start.codes).decode())
    root = np.linalg.cholesky(metric)  # H = R·Rᵀ

    def seen(matrix):
        return (matrix.reshape(2, 6, 8) @ root).reshape(-1)

    best, *_ = np.linalg.lstsq(np.stack([seen(each) for each in columns], axis=1), seen(target), rcond=None)
    least = loss(VectorCode(best.reshape(start.books.shape), start.codes), target, metric)
    # conjugate gradients stop at 1e-5 of the first residual, and the error goes with its square
    assert loss(found, target, metric) == pytest.approx(least, rel=1e-6)


def test_codes_are_the_best_for_each_place_given_the_others():
    target, metric = normal(0, 6, 8), moments(1, 1, 8)
    code = cluster(target, length=4, count=5, metric=metric)
    for _ in range(20):
        code = reassign(code, target, metric)
    best = loss(code, target, metric)
    for row, place, number in np.ndindex(6, 2, 5):
        codes = code.codes.copy()
        codes[0, row, place] = number
        assert loss(VectorCode(code.books, codes), target, metric) >= best * (1 - 1e-9)


def test_wide_rows_are_taken_block_by_block():
    """More columns than are kept up to date at once."""
    target, metric = normal(0, 5, 288), moments(1, 1, 288)
    code = cluster(target, length=4, count=8, metric=metric)
    better = reassign(code, target, metric)
    assert loss(better, target, metric) < 0.8 * loss(code, target, metric)


def test_plain_k_means_takes_the_nearest_vector():
    matrix = normal(3, 50, 12)
    code = cluster(matrix, length=4, count=16)
    parts = matrix.reshape(50, 3, 1, 4)
    distances = ((parts - code.books[0, 0]) ** 2).sum(axis=-1)
    chosen = np.take_along_axis(distances, code.codes[0][..., np.newaxis].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, distances.min(axis=-1), rtol=1e-5, atol=1e-6)  # found in float32


def test_is_lossless_where_there_are_no_more_vectors_than_centres():
    book = normal(0, 7, 2)
    matrix = book[np.random.default_rng(1).integers(0, 7, (20, 6))].reshape(20, 12)
    code = cluster(matrix, length=2, count=8)
    np.testing.assert_allclose(code.decode(), matrix, rtol=0, atol=1e-6)  # centres are float32


def test_more_stages_and_own_codebooks_lose_less():
    matrix = normal(0, 200, 16)
    one, two = (cluster(matrix, length=4, count=16, stages=stages).decode() for stages in (1, 2))
    own = cluster(matrix, length=4, count=16, by_place=True).decode()
    plain = np.linalg.norm(matrix - one)
    assert np.linalg.norm(matrix - two) < 0.7 * plain
    assert np.linalg.norm(matrix - own) < plain


def test_heavy_places_lose_less():
    matrix, metric = normal(0, 300, 8), np.diag([100.0] * 4 + [1.0] * 4)[np.newaxis]
    off = (matrix - cluster(matrix, length=4, count=16, metric=metric).decode()) ** 2
    assert off[:, :4].sum() < off[:, 4:].sum()


def test_learns_from_a_sample_of_many_and_starts_from_mini_batches(monkeypatch):
    matrix = normal(0, 300, 16).astype(np.float32)
    whole = cluster(matrix, length=4, count=8)
    monkeypatch.setattr(vectors, "LEARNED", 600)
    monkeypatch.setattr(vectors, "EXACT", 300)
    part = cluster(matrix, length=4, count=8)
    lost = [np.linalg.norm(matrix - each.decode()) for each in (whole, part)]
    assert lost[1] < 1.1 * lost[0]
    assert part.codes.shape == (1, 300, 4)


@pytest.mark.parametrize("by_place", [False, True])
def test_a_sample_has_the_largest_of_many(monkeypatch, by_place):
    """One sub-vector of thousands is a thousand times as large: a sample would most likely lack it."""
    matrix = normal(0, 3000, 8).astype(np.float32)
    matrix[1234, 4:] = 1000
    monkeypatch.setattr(vectors, "LEARNED", 100)
    monkeypatch.setattr(vectors, "_SURE", 8)
    found = cluster(matrix, length=4, count=8, by_place=by_place).decode()
    np.testing.assert_allclose(found[1234, 4:], 1000, rtol=1e-3)


def test_the_same_seed_gives_the_same_codes():
    matrix = normal(0, 100, 16)
    first, second, other = (cluster(matrix, length=4, count=16, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.books, second.books)
    assert (first.codes != other.codes).any()


def test_works_in_pieces(monkeypatch):
    matrix = normal(0, 40, 16)
    whole = cluster(matrix, length=4, count=8)
    monkeypatch.setattr(vectors, "PIECE", 100)
    pieces = cluster(matrix, length=4, count=8)
    np.testing.assert_array_equal(pieces.codes, whole.codes)
    np.testing.assert_array_equal(pieces.decode(), whole.decode())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_counts_distinct_sub_vectors(dtype):
    matrix = np.tile(np.arange(12, dtype=dtype), (5, 1))
    assert distinct_vectors(matrix, 4, 3) == 3
    assert distinct_vectors(matrix, 4, 2) is None
    assert distinct_vectors(np.asfortranarray(matrix), 4, 3) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, r"a matrix \[4, 8\] has no sub-vectors of 3"),
        ({"count": 257}, "take 1 or more of 1 to 256"),
        ({"stages": 0}, "0 codebooks of 2 vectors"),
        ({"metric": np.ones((3, 8, 8))}, r"a metric \[3, 8, 8\] does not belong"),
    ],
)
def test_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        cluster(np.ones((4, 8)), **{"length": 2, "count": 2, **options})


def test_refuses_values_that_are_not_finite():
    with pytest.raises(ValueError, match="cannot cluster values that are not finite"):
        cluster(np.full((4, 8), np.nan), length=2, count=2)
