"""Vector quantization of a matrix: its rows are cut into sub-vectors, and each takes one of a few from a codebook.

Product quantization in the sense of Gong et al., "Compressing Deep Convolutional Networks using Vector Quantization"
(2014): a codebook for all sub-vectors, or one for each place in a row; residual quantization adds the vectors of
several codebooks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import PIECE, Array, Float64Array

Numbers = NDArray[np.uint8]

MOST = 256
"""Vectors of a codebook at most: a code is a byte."""

LEARNED = 1 << 18
"""Sub-vectors that a codebook is learnt from at most; of more, a sample."""

EXACT = 1 << 15
"""Sub-vectors up to which k-means sees all of them from the start; of more, it starts from mini-batches."""

_SURE = 1024  # sub-vectors that no sample lacks
_BATCH = 4096  # of mini-batches
_ROUNDS = 50  # of k-means on all vectors
_POLISH = 10  # of the same, where mini-batches came before
_SCORES = 1 << 22  # distances held at once


@dataclass(frozen=True, slots=True, eq=False)
class VectorCode:
    """A matrix as sums of sub-vectors of codebooks.

    Attributes:
        books: [stages, 1 or places, vectors, length], float64: one codebook a stage, or one for each place of a row.
        codes: [stages, rows, places], which vector each sub-vector takes in each stage.
    """

    books: Float64Array
    codes: Numbers

    @property
    def length(self) -> int:
        """Entries of a sub-vector."""
        return int(self.books.shape[-1])

    def decode(self, dtype: np.dtype[Any] | type[np.float64] = np.float64) -> Array:
        """The matrix [rows, places · length].

        Codebooks are rounded to the type first and added in it, stage after stage: where codes are equal, bits are.
        """
        books = self.books.astype(dtype)
        stages, rows, places = self.codes.shape
        result = np.empty((rows, places, self.length), books.dtype)
        for first, block in _row_blocks(result):
            block[...] = _looked_up(books[0], self.codes[0, first : first + len(block)])
            for stage in range(1, stages):
                block += _looked_up(books[stage], self.codes[stage, first : first + len(block)])
        return result.reshape(rows, -1)


def cluster(
    rows: Array,
    *,
    length: int,
    count: int,
    stages: int = 1,
    by_place: bool = False,
    metric: Array | None = None,
    seed: int = 0,
) -> VectorCode:
    """Cluster the sub-vectors of a matrix by k-means; each stage clusters what those before leave.

    Args:
        rows: [rows, k], any float dtype, finite.
        length: of a sub-vector; divides k.
        count: vectors of a codebook, 1 to 256.
        stages: codebooks whose vectors are added.
        by_place: a codebook for each of the k / length places.
        metric: H, [groups, k, k], symmetric and positive: where the error counts how much. Of it only the blocks on the
            diagonal are used: their mean, and for each place how heavy it is. None counts all alike.
        seed: of the first centres.

    Raises:
        ValueError: options or shapes that do not fit, or values that are not finite.
    """
    _check(rows, length, count, stages, metric)
    places = rows.shape[1] // length
    shelves = places if by_place else 1
    shapes = _shapes(metric, places, length, shelves)
    heavy = None if metric is None or by_place else _weights(metric, length)
    books = np.empty((stages, shelves, count, length))
    for shelf in range(shelves):
        chosen, weights = _sample(rows, length, shelf if by_place else None, heavy, seed + shelf)
        turned = np.ascontiguousarray(chosen @ shapes[shelf].T.astype(np.float32))
        back = np.linalg.inv(shapes[shelf]).T
        for stage in range(stages):
            book = _kmeans(turned, weights, count, seed + shelf + 7919 * stage)
            turned -= book[_nearest(turned, book)]
            books[stage, shelf] = book.astype(np.float64) @ back
    return VectorCode(books, _encode(rows, books, shapes))


def distinct_vectors(rows: Array, length: int, limit: int) -> int | None:
    """How many sub-vectors differ in their bits; None where more than `limit` do.

    Args:
        rows: [rows, k]; `length` divides k.
        length: of a sub-vector.
        limit: to count to.
    """
    kind = np.dtype((np.void, length * rows.dtype.itemsize))
    found: Array = np.empty(0, kind)
    step = max(1, 4 * limit * length // rows.shape[1])
    for first in range(0, len(rows), step):
        vectors = np.ascontiguousarray(rows[first : first + step]).view(kind).reshape(-1)
        found = np.unique(np.concatenate([found, vectors]))
        if found.size > limit:
            return None
    return int(found.size)


def _check(rows: Array, length: int, count: int, stages: int, metric: Array | None) -> None:
    if rows.ndim != 2 or not rows.size or length < 1 or rows.shape[1] % length:
        raise ValueError(f"a matrix {list(rows.shape)} has no sub-vectors of {length}")
    if not 1 <= count <= MOST or stages < 1:
        raise ValueError(f"{stages} codebooks of {count} vectors: take 1 or more of 1 to {MOST}")
    k = rows.shape[1]
    if metric is not None and (metric.ndim != 3 or metric.shape[1:] != (k, k) or len(rows) % len(metric)):
        raise ValueError(f"a metric {list(metric.shape)} does not belong to a matrix {list(rows.shape)}")
    step = max(1, PIECE // k)
    if not all(np.isfinite(rows[first : first + step]).all() for first in range(0, len(rows), step)):
        raise ValueError("cannot cluster values that are not finite")


def _row_blocks(rows: Array) -> Iterator[tuple[int, Array]]:
    """Views of some rows at once, each with the number of its first row."""
    step = max(1, PIECE // max(1, rows[0].size))
    yield from ((first, rows[first : first + step]) for first in range(0, len(rows), step))


def _looked_up(shelves: Array, codes: Numbers) -> Array:
    """The vectors of codes [rows, places] in codebooks [1 or places, vectors, length]."""
    vectors: Array = shelves[np.arange(codes.shape[1]), codes] if len(shelves) > 1 else shelves[0][codes]
    return vectors


def diagonal_blocks(metric: Array, length: int) -> Float64Array:
    """The blocks on the diagonal, [groups, places, length, length]."""
    groups, k, _ = metric.shape
    starts = np.arange(0, k, length)[:, np.newaxis] + np.arange(length)
    blocks: Float64Array = metric[:, starts[:, :, np.newaxis], starts[:, np.newaxis, :]].astype(np.float64)
    return blocks.reshape(groups, k // length, length, length)


def _weights(metric: Array, length: int) -> Float64Array:
    """How heavy an error is at each place, [places]; one on average."""
    heavy: Float64Array = np.einsum("gpll->p", diagonal_blocks(metric, length))
    mean = float(heavy.mean())
    return heavy / mean if mean > 0 else np.ones_like(heavy)


def _shapes(metric: Array | None, places: int, length: int, shelves: int) -> Float64Array:
    """For each codebook what turns vectors so that plain distances are the metric's, [shelves, length, length]."""
    shapes = np.broadcast_to(np.eye(length), (shelves, length, length))
    if metric is None:
        return shapes
    blocks = diagonal_blocks(metric, length).mean(axis=0)
    blocks = blocks.reshape(shelves, places // shelves, length, length).mean(axis=1)
    mean = np.einsum("sll->s", blocks)[:, np.newaxis, np.newaxis] / length
    blocks = np.divide(blocks, mean, out=np.zeros_like(blocks), where=mean > 0)
    try:
        return np.linalg.cholesky(blocks + 1e-3 * np.eye(length), upper=True)
    except np.linalg.LinAlgError:  # the blocks of a rounded matrix may have negative directions
        return shapes


def _sample(
    rows: Array, length: int, place: int | None, heavy: Float64Array | None, seed: int
) -> tuple[NDArray[np.float32], Float64Array | None]:
    """Sub-vectors to learn from, of one place or of all, [n, length], and the weight of each."""
    total, places = rows.shape[0], rows.shape[1] // length
    count = total * places if place is None else total
    numbers = np.arange(count)
    if count > LEARNED:
        chance = np.random.default_rng(seed).integers(0, count, LEARNED)
        numbers = np.unique(np.concatenate([_largest(rows, length, place, heavy), chance]))
    if place is not None:
        numbers = numbers * places + place
    row, column = np.divmod(numbers, places)
    chosen = np.empty((numbers.size, length), np.float32)
    for entry in range(length):
        chosen[:, entry] = rows[row, column * length + entry]
    return chosen, None if heavy is None else heavy[column]


def _largest(rows: Array, length: int, place: int | None, heavy: Float64Array | None) -> NDArray[np.int64]:
    """The sub-vectors of one place or of all that weigh most: few, and a sample that lacked them would lose them."""
    columns = slice(None) if place is None else slice(place * length, (place + 1) * length)
    energy = np.empty((len(rows), rows[:1, columns].shape[1] // length), np.float32)
    for first, block in _row_blocks(rows):
        parts = block[:, columns].astype(np.float32).reshape(len(block), -1, length)
        energy[first : first + len(block)] = np.einsum("rpl,rpl->rp", parts, parts)
    if heavy is not None:
        energy *= heavy.astype(np.float32)
    found: NDArray[np.int64] = np.argpartition(energy.reshape(-1), -_SURE)[-_SURE:]
    return found


def _kmeans(vectors: NDArray[np.float32], weights: Float64Array | None, count: int, seed: int) -> NDArray[np.float32]:
    """Centres [count, length]; of fewer vectors than that, some come twice."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    clusters = min(count, len(vectors))
    # Threads would add in the order in which they finish: the same seed must give the same codes.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters
        start, rounds = "k-means++", _ROUNDS
        if len(vectors) > EXACT:
            quick = MiniBatchKMeans(clusters, batch_size=_BATCH, max_iter=5, n_init=1, random_state=seed)
            start, rounds = quick.fit(vectors, sample_weight=weights).cluster_centers_, _POLISH
        exact = KMeans(clusters, init=start, n_init=1, max_iter=rounds, random_state=seed)
        centres = exact.fit(vectors, sample_weight=weights).cluster_centers_
    return np.pad(centres, ((0, count - clusters), (0, 0)), mode="edge").astype(np.float32)


def _nearest(vectors: NDArray[np.float32], book: NDArray[np.float32]) -> Numbers:
    """The vector of a codebook that is nearest to each of [n, length]."""
    codes = np.empty(len(vectors), np.uint8)
    square = np.einsum("cl,cl->c", book, book) / 2
    step = max(1, _SCORES // len(book))
    for first in range(0, len(vectors), step):
        codes[first : first + step] = np.argmin(square - vectors[first : first + step] @ book.T, axis=1)
    return codes


def _encode(rows: Array, books: Float64Array, shapes: Float64Array) -> Numbers:
    """The codes of all sub-vectors, stage after stage, some rows at once."""
    stages, shelves, _, length = books.shape
    places = rows.shape[1] // length
    codes = np.empty((stages, len(rows), places), np.uint8)
    turned = np.einsum("svcl,vml->svcm", books, shapes).astype(np.float32)
    for first, block in _row_blocks(rows):
        target = codes[:, first : first + len(block)]
        vectors = block.astype(np.float32).reshape(len(block), shelves, -1, length)
        for shelf in range(shelves):
            left = vectors[:, shelf].reshape(-1, length) @ shapes[shelf].T.astype(np.float32)
            spot = slice(shelf, shelf + 1) if shelves > 1 else slice(None)
            for stage in range(stages):
                found = _nearest(left, turned[stage, shelf])
                left -= turned[stage, shelf][found]
                target[stage, :, spot] = found.reshape(len(block), -1)
    return codes
