"""One-dimensional k-means: few centroids in place of many weights (Han et al., 2016, section 3).

Sorted values make the clusters intervals, so the best ones follow from dynamic programming (Wang and Song, 2011),
here over groups of neighbouring values: exact where there are no more distinct values than `GROUPS`. Lloyd's
iteration on the values themselves then moves the borders of the groups to where they belong. The paper's own starts of
that iteration are there for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import (
    Array,
    Codes,
    Float64Array,
    pieces,
    smallest_unsigned,
)
from onnxpress.passes.kernels.intervals import Ints, Points, best_cuts, running
from onnxpress.passes.kernels.packing import distinct

GROUPS = 4096
"""Up to so many distinct values the clusters are optimal; of more, neighbours are grouped."""

SORTED = 1 << 21
"""Up to so many values are sorted; more are gathered into bins of 20 bits, each 2^-11 of its value wide."""

_ANCHOR = 1e6  # mass that ties a cluster to zero, in masses of all other values
_LEAST_GROUPS = 1024
_ROUNDS = 300  # of Lloyd; from where the dynamic programming leaves off, a few do
_TABLE = 1 << 24  # entries of the dynamic programming's table for many rows at once

Floats: TypeAlias = NDArray[np.floating]

Start: TypeAlias = Literal["optimal", "linear", "density", "random"]
"""Where Lloyd's iteration starts: at the best clusters of groups; at centroids spread evenly over the values, or over
their distribution function; or at some of the values."""

STARTS: tuple[Start, ...] = ("optimal", "linear", "density", "random")


def kmeans_1d(
    values: Array,
    clusters: int,
    *,
    weights: Array | None = None,
    keep_zero: bool = False,
    start: Start = "optimal",
    seed: int = 0,
) -> tuple[Floats, Codes]:
    """Cluster values so that Σ weight·(value − centroid)² is least; deterministic.

    Optimal for up to `GROUPS` distinct values, close to it above. Lossless where there are no more distinct values
    than clusters.

    Args:
        values: any shape and float dtype, finite.
        clusters: at least 1, with `keep_zero` at least 2.
        weights: importance of each value, same shape, finite and not negative; None counts all alike.
        keep_zero: values that are zero stay exactly zero: where there are any, one centroid is 0.0.
        start: of Lloyd's iteration; other ones than `optimal` may end in worse clusters, and fewer.
        seed: of `random`.

    Returns:
        Centroids [at most `clusters`], ascending, float32 (float64 for float64 values), and the codes, of the shape
        of `values` in the smallest unsigned dtype: `centroids[codes]` approximates `values`.

    Raises:
        ValueError: no values, one that is not finite, unfit `weights`, or `clusters` too small.
    """
    _check(values, clusters, weights, keep_zero=keep_zero)
    points = points_of(values, weights=weights, keep_zero=keep_zero)
    if start == "optimal":
        found = _cluster([points], clusters, limit=GROUPS, keep_zero=keep_zero)[0]
    else:
        found = _started(points, clusters, start, seed, keep_zero=keep_zero)
    centroids = np.unique(found.astype(_kind(values)))
    return centroids, assign(values, centroids)


def kmeans_rows(
    values: Array,
    clusters: int,
    *,
    weights: Array | None = None,
    keep_zero: bool = False,
    start: Start = "optimal",
    seed: int = 0,
) -> tuple[Floats, Codes]:
    """Cluster each row by itself, as `kmeans_1d` does, with coarser groups and many rows at once.

    Args:
        values: [rows, ...], any float dtype, finite.
        clusters: of a row, at least 1, with `keep_zero` at least 2.
        weights: importance of each value, same shape.
        keep_zero: zeros stay exactly zero.
        start: of Lloyd's iteration.
        seed: of `random`.

    Returns:
        Centroids [rows, clusters], each row ascending, its last repeated where fewer were needed; codes of the shape
        of `values`.

    Raises:
        ValueError: as `kmeans_1d`.
    """
    _check(values, clusters, weights, keep_zero=keep_zero)
    books = np.empty((values.shape[0], clusters), _kind(values))
    codes = np.empty(values.shape, smallest_unsigned(clusters))
    limit = min(GROUPS, max(512, 8 * clusters))
    batch = max(1, min(_TABLE // (limit * clusters), 4 * SORTED // values[0].size))
    for first in range(0, values.shape[0], batch):
        rows = range(first, min(first + batch, values.shape[0]))
        points = [
            points_of(values[row], weights=None if weights is None else weights[row], keep_zero=keep_zero)
            for row in rows
        ]
        if start == "optimal":
            found = _cluster(points, clusters, limit=limit, keep_zero=keep_zero)
        else:
            found = [_started(each, clusters, start, seed, keep_zero=keep_zero) for each in points]
        for row, centroids in zip(rows, found, strict=True):
            book = np.unique(centroids.astype(books.dtype))
            books[row] = np.pad(book, (0, clusters - book.size), mode="edge")
            codes[row] = assign(values[row], book)
    return books, codes


def assign(values: Array, centroids: Floats) -> Codes:
    """The index of the nearest of ascending, distinct `centroids` for each value.

    Args:
        values: any shape and float dtype.
        centroids: [clusters], ascending.

    Returns:
        The shape of `values`, in the smallest unsigned dtype that numbers the centroids.
    """
    codes = np.zeros(values.shape, smallest_unsigned(centroids.size))
    kind = _kind(values)
    borders = _floor_to(kind, _borders(centroids.astype(np.float64)))
    # small pieces stay in the cache while every border passes over them
    for source, target in zip(pieces(values, size=1 << 15), pieces(codes, size=1 << 15), strict=True):
        plain = source.astype(kind, copy=False)
        if codes.dtype == np.uint8:
            for border in borders:
                np.add(target, plain > border, out=target)
        else:
            target[...] = np.searchsorted(borders, plain)
    return codes


def points_of(values: Array, *, weights: Array | None = None, keep_zero: bool = False) -> Points:
    """What there is to cluster: exact up to `SORTED` values or `GROUPS` distinct ones, else the means of bins.

    Args:
        values: any shape and float dtype, finite.
        weights: importance of each value, same shape; None counts all alike.
        keep_zero: zeros must have a point of their own.
    """
    # a trace of mass everywhere: a value of no weight still has a place, and no sum of masses is zero
    trace = (
        0.0
        if weights is None
        else 1e-9 * sum(float(np.sum(part, dtype=np.float64)) for part in pieces(weights)) / weights.size
    )
    if values.size <= SORTED:
        return _sorted_points(values, weights, trace)
    few = distinct(values, GROUPS)
    if few is not None:
        return _counted_points(np.unique(few.astype(np.float64)), values, weights, trace)
    # bins are fine around zero: there must they lie that zero may stay, else around the mean
    centre = 0.0 if keep_zero else _total(values) / values.size
    return _binned_points(centre, values, weights, trace)


def _sorted_points(values: Array, weights: Array | None, trace: float) -> Points:
    flat = values.reshape(-1).astype(_kind(values))
    if weights is None:
        ordered = np.sort(flat)
    else:
        order = np.argsort(flat, kind="stable")
        ordered, mass = flat[order], weights.reshape(-1)[order].astype(np.float64) + trace
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    together = np.diff(first, append=flat.size).astype(np.float64) if weights is None else np.add.reduceat(mass, first)
    return Points(ordered[first].astype(np.float64), together)


def _counted_points(few: Float64Array, values: Array, weights: Array | None, trace: float) -> Points:
    mass = np.zeros(few.size)
    for piece, weight in _masses(values, weights, trace):
        mass += np.bincount(np.searchsorted(few, piece), weight, minlength=few.size)
    return Points(few, mass)


def _binned_points(centre: float, values: Array, weights: Array | None, trace: float) -> Points:
    """Means of the values whose distance to `centre` agrees, as float32, in sign, exponent and 11 mantissa bits."""
    bins = 1 << 20
    mass, moment = np.zeros(bins), np.zeros(bins)
    for piece, weight in _masses(values, weights, trace):
        offset = piece - centre + 0.0  # -0.0 becomes 0.0 and shares its bin
        with np.errstate(over="ignore"):
            bits = offset.astype(np.float32).view(np.int32)
        # negative floats are stored as magnitudes: inverting them makes the bits ascend with the value
        key = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> 12) + bins // 2
        mass += np.bincount(key, weight, minlength=bins)
        moment += np.bincount(key, offset if weight is None else offset * weight, minlength=bins)
    used = mass > 0
    value = moment[used] / mass[used]
    value[np.abs(value) < np.finfo(np.float32).tiny] = 0  # the bin of zero is exactly zero
    return Points(value + centre, mass[used])


def _masses(values: Array, weights: Array | None, trace: float) -> Iterator[tuple[Float64Array, Float64Array | None]]:
    if weights is None:
        yield from ((piece.astype(np.float64), None) for piece in pieces(values))
        return
    for piece, weight in zip(pieces(values), pieces(weights), strict=True):
        yield piece.astype(np.float64), weight.astype(np.float64) + trace


def _cluster(points: Sequence[Points], clusters: int, *, limit: int, keep_zero: bool) -> list[Float64Array]:
    """Centroids of each row of points, ascending."""
    found = [row.value for row in points]
    many = [index for index, row in enumerate(points) if row.value.size > clusters]
    if many:
        rows = [points[index] for index in many]
        masses = [running(row.mass) for row in rows]
        edges = [_edges(row, mass, limit, 32 * clusters) for row, mass in zip(rows, masses, strict=True)]
        anchored = [_anchor(row) if keep_zero else row for row in rows]
        cuts = best_cuts(anchored, edges, clusters)
        for index, row, mass, cut in zip(many, rows, masses, cuts, strict=True):
            found[index] = _lloyd(row, mass, cut, keep_zero=keep_zero)
    return found


def _started(points: Points, clusters: int, start: Start, seed: int, *, keep_zero: bool) -> Float64Array:
    """Centroids where Lloyd's iteration ends that starts as Han et al. have it."""
    value = points.value
    if value.size <= clusters:
        return value
    share = points.mass / points.mass.sum()
    if start == "linear":
        first = np.linspace(value[0], value[-1], clusters)
    elif start == "density":
        first = value[
            np.minimum(np.searchsorted(np.cumsum(share), (np.arange(clusters) + 0.5) / clusters), value.size - 1)
        ]
    else:
        first = value[np.random.default_rng(seed).choice(value.size, clusters, replace=False, p=share)]
    inner = np.searchsorted(value, _borders(np.unique(first)), side="right")
    return _lloyd(
        points, running(points.mass), np.unique(np.concatenate([[0], inner, [value.size]])), keep_zero=keep_zero
    )


def _anchor(points: Points) -> Points:
    """The same with so much mass at zero, if there is a zero, that the centroid of its cluster lies there."""
    return Points(points.value, np.where(points.value == 0, _ANCHOR * points.mass.sum(), points.mass))


def _edges(points: Points, mass: Float64Array, limit: int, groups: int) -> Ints:
    """The first points of the groups, and the end: up to `limit` points each its own group.

    Of more, half the groups are of equal width and half of equal mass, whose running sum is given.
    """
    if points.value.size <= limit:
        return np.arange(points.value.size + 1)
    value = points.value
    groups = min(limit, max(_LEAST_GROUPS, groups))
    by_value = np.searchsorted(value, np.linspace(value[0], value[-1], groups // 2))
    by_mass = np.searchsorted(mass[1:], np.linspace(0, mass[-1], groups // 2))
    return np.unique(np.concatenate([[0, value.size], by_value, np.minimum(by_mass, value.size)]))


def _lloyd(points: Points, mass: Float64Array, cuts: Ints, *, keep_zero: bool) -> Float64Array:
    """Centroids after moving every cut to the middle of its neighbours, and these to their means, until all rest."""
    value: Float64Array = points.value
    moment = running(points.mass * value)
    zero = int(np.searchsorted(value, 0.0))
    pinned = keep_zero and zero < value.size and value[zero] == 0
    cuts = np.unique(cuts)
    for _ in range(_ROUNDS):
        held = np.diff(mass[cuts])
        centroids: Float64Array = value[(cuts[:-1] + cuts[1:]) // 2]  # for a trace of mass that the sums swallowed
        np.divide(np.diff(moment[cuts]), held, out=centroids, where=held > 0)
        if pinned:
            centroids[int(np.searchsorted(cuts, zero, side="right")) - 1] = 0
        inner = np.searchsorted(value, _borders(centroids), side="right")
        moved = np.unique(np.concatenate([[0], inner, [value.size]]))
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    return centroids


def _borders(centroids: Float64Array) -> Float64Array:
    """Middles of neighbours, always below the upper one, so that each centroid is nearest to itself."""
    middle = centroids[:-1] / 2 + centroids[1:] / 2
    return np.minimum(middle, np.nextafter(centroids[1:], -np.inf))


def _floor_to(kind: type[np.floating], wide: Float64Array) -> Floats:
    """The largest number of the narrower dtype that is not above: x > border says the same of both."""
    narrow = wide.astype(kind)
    return np.where(narrow > wide, np.nextafter(narrow, kind(-np.inf)), narrow)


def _total(array: Array) -> float:
    return sum(float(piece.astype(np.float64).sum()) for piece in pieces(array))


def _kind(values: Array) -> type[np.floating]:
    return np.float64 if values.dtype == np.float64 else np.float32


def _check(values: Array, clusters: int, weights: Array | None, *, keep_zero: bool) -> None:
    if clusters < 1 + keep_zero:
        raise ValueError(f"clusters must be at least {1 + keep_zero}{' with keep_zero' * keep_zero}, got {clusters}")
    if values.size == 0:
        raise ValueError(f"no values to cluster in shape {values.shape}")
    if not all(np.isfinite(piece).all() for piece in pieces(values)):
        raise ValueError("cannot cluster values that are not finite")
    if weights is None:
        return
    if weights.shape != values.shape:
        raise ValueError(f"weights of shape {weights.shape} do not fit values of shape {values.shape}")
    if any(bool(np.less(piece, 0).any()) for piece in pieces(weights)) or not 0 < _total(weights) < np.inf:
        raise ValueError("weights must be finite, not negative and not all zero")
