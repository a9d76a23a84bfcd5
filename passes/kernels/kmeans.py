"""One-dimensional k-means: few centroids in place of many weights (Han et al., 2016, section 3).

Sorted values make the clusters intervals, so the best ones follow from dynamic programming (Wang and Song, 2011): exact
where there are no more than `GROUPS` distinct values, or on request. Of more, it divides groups of neighbouring values;
then all cuts are moved together, in ever smaller steps, to where they are best among the values themselves. Sums are
those of the values, so what is not exact is only where clusters end: the error came out within 10^-4 of the least on
all distributions of the tests, most often within 10^-6. The paper's own starts of Lloyd's iteration are there for
comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes, Float64Array, ascending, smallest_unsigned
from onnxpress.passes.kernels.clusters import Line, groups_of, lloyd, refined
from onnxpress.passes.kernels.intervals import Ints, best_cuts
from onnxpress.passes.kernels.nearest import assign
from onnxpress.passes.kernels.points import (
    FEW,
    SORTED,
    Floats,
    Points,
    check_values,
    distinct_points,
    kind_of,
    ordered_points,
)

GROUPS = FEW
"""Up to so many distinct values the clusters are optimal; of more, neighbours are grouped."""

_GROUPS = 48  # for each cluster
_LEAST_GROUPS = 1024
_TABLE = 1 << 24  # entries of the dynamic programming's table for many rows at once

Start: TypeAlias = Literal["optimal", "exact", "linear", "density", "random"]
"""How clusters are found: the best, of groups where there are many distinct values; the best whatever it takes; or by
Lloyd's iteration from centroids spread evenly over the values, or over their distribution function, or from some of the
values."""

STARTS: tuple[Start, ...] = ("optimal", "exact", "linear", "density", "random")


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

    Optimal for up to `GROUPS` distinct values, or where that is asked for; above, the error is that of the least within
    10^-4, on all but contrived values. Lossless where there are no more distinct values than clusters.

    Args:
        values: any shape and float dtype, finite.
        clusters: at least 1, with `keep_zero` at least 2.
        weights: importance of each value, same shape, finite and not negative; None counts all alike.
        keep_zero: values that are zero stay exactly zero: where there are any, one centroid is 0.0.
        start: `optimal`; `exact` for the optimum whatever it takes: for n distinct values time n·log n and memory n,
            both times clusters; others may end in worse clusters, and fewer.
        seed: of `random`.

    Returns:
        Centroids [at most `clusters`], ascending, float32 (float64 for float64 values), and the codes, of the shape
        of `values` in the smallest unsigned dtype: `centroids[codes]` approximates `values`.

    Raises:
        ValueError: no values, one that is not finite, unfit `weights`, or `clusters` too small.
    """
    _check(values, clusters, weights, keep_zero=keep_zero)
    points = _points(values, weights, start, keep_zero=keep_zero)
    limit = GROUPS if start == "optimal" else values.size
    found = _found([points], clusters, limit, start, seed, keep_zero=keep_zero)
    centroids = ascending(found[0].astype(kind_of(values)))
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
        start: as in `kmeans_1d`.
        seed: of `random`.

    Returns:
        Centroids [rows, clusters], each row ascending, its last repeated where fewer were needed; codes of the shape
        of `values`.

    Raises:
        ValueError: as `kmeans_1d`.
    """
    _check(values, clusters, weights, keep_zero=keep_zero)
    books = np.empty((values.shape[0], clusters), kind_of(values))
    codes = np.empty(values.shape, smallest_unsigned(clusters))
    limit = min(GROUPS, max(512, 8 * clusters)) if start == "optimal" else values[0].size
    batch = max(1, min(_TABLE // (min(limit, values[0].size) * clusters), 4 * SORTED // values[0].size))
    for first in range(0, values.shape[0], batch):
        part = slice(first, first + batch)
        masses = [None] * len(values[part]) if weights is None else weights[part]
        points = [
            _points(row, mass, start, keep_zero=keep_zero) for row, mass in zip(values[part], masses, strict=True)
        ]
        found = _found(points, clusters, limit, start, seed, keep_zero=keep_zero)
        for row, book, code, centroids in zip(values[part], books[part], codes[part], found, strict=True):
            own = ascending(centroids.astype(books.dtype))
            book[...] = np.pad(own, (0, clusters - own.size), mode="edge")
            code[...] = assign(row, own)
    return books, codes


def _points(values: Array, weights: Array | None, start: Start, *, keep_zero: bool) -> Points:
    if start == "exact":
        return distinct_points(values, weights=weights)
    return ordered_points(values, weights=weights, keep_zero=keep_zero)


def _found(
    points: Sequence[Points], clusters: int, limit: int, start: Start, seed: int, *, keep_zero: bool
) -> list[Float64Array]:
    """Centroids of each row of points, by the way that is asked for; the best are those of `limit` groups."""
    if start in ("optimal", "exact"):
        return _cluster(points, clusters, limit=limit, keep_zero=keep_zero)
    return [_started(row, clusters, start, seed, keep_zero=keep_zero) for row in points]


def _cluster(points: Sequence[Points], clusters: int, *, limit: int, keep_zero: bool) -> list[Float64Array]:
    """Centroids of each row of points, ascending."""
    found = [row.value.astype(np.float64) for row in points]
    many = [index for index, row in enumerate(points) if row.value.size > clusters]
    if many:
        lines = [Line.of(points[index], keep_zero=keep_zero) for index in many]
        edges = [_edges(line.points, clusters, limit) for line in lines]
        pairs = list(zip(lines, edges, strict=True))
        held = [line.anchored(line.points.held(edge), edge) for line, edge in pairs]
        cuts = best_cuts(held, [line.points.moved(edge) for line, edge in pairs], clusters)
        for index, (line, edge), cut in zip(many, pairs, cuts, strict=True):
            found[index] = line.centroids(_placed(line, edge, cut))
    return found


def _edges(points: Points, clusters: int, limit: int) -> Ints:
    """The first points of the groups, and the end: up to `limit` points each its own group."""
    if points.value.size <= limit:
        return np.arange(points.value.size + 1)
    return groups_of(points, min(limit, max(_LEAST_GROUPS, _GROUPS * clusters)))


def _placed(line: Line, edges: Ints, cuts: Ints) -> Ints:
    """The points where clusters begin, by the groups where they do."""
    if edges.size > line.points.value.size:
        return edges[cuts]
    size = np.diff(edges, prepend=0, append=edges[-1])
    return refined(line, edges[cuts], np.maximum(size[cuts], size[cuts + 1]))


def _started(points: Points, clusters: int, start: Start, seed: int, *, keep_zero: bool) -> Float64Array:
    """Centroids where Lloyd's iteration ends that starts as Han et al. have it."""
    value = points.value.astype(np.float64)
    if value.size <= clusters:
        return value
    share = points.masses / points.masses.sum()
    if start == "linear":
        first = np.linspace(value[0], value[-1], clusters)
    elif start == "density":
        first = value[
            np.minimum(np.searchsorted(np.cumsum(share), (np.arange(clusters) + 0.5) / clusters), value.size - 1)
        ]
    else:
        first = value[np.random.default_rng(seed).choice(value.size, clusters, replace=False, p=share)]
    line = Line.of(points, keep_zero=keep_zero)
    return line.centroids(lloyd(line, line.cuts_between(ascending(first))))


def _check(values: Array, clusters: int, weights: Array | None, *, keep_zero: bool) -> None:
    if clusters < 1 + keep_zero:
        raise ValueError(f"clusters must be at least {1 + keep_zero}{' with keep_zero' * keep_zero}, got {clusters}")
    check_values(values, weights, to="cluster")
