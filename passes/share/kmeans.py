"""Weight sharing: every weight takes the nearest of a few values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array, pieces
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.kmeans import Floats, assign, kmeans_1d, kmeans_rows
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    LAZY,
    Layout,
    RefusalError,
    SitePass,
    check_choice,
    check_count,
    check_exactly_one,
    check_fraction,
    wrong,
)
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

SPARSE = 0.05
"""Fraction of zeros from which a weight is taken for pruned, and its zeros are kept."""


@dataclass(frozen=True, kw_only=True)
class ShareKMeans(SitePass):
    """Cluster the weights of each site into few values (Han et al., 2016, "Deep Compression", section 3).

    One-dimensional k-means, optimal or close to it. The weights stay dense arrays that happen to hold few distinct
    values; `encode` stores them as codes. Zeros of a pruned weight stay zero and take one of the clusters.

    Attributes:
        bits: of a code, 1 to 8, for 2^bits clusters; exactly one of `bits`, `clusters` and `error`.
        clusters: distinct values at most, 2 to 65536.
        error: in (0, 1): each weight gets the fewest bits, 1 to 8, whose error ‖W − W'‖ / ‖W‖ is at most this; one
            that would need more is left alone.
        per: `tensor` for one codebook a weight, `channel` for one each output channel.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "share-kmeans"
    bits: int | None = None
    clusters: int | None = None
    error: float | None = None
    per: Literal["tensor", "channel"] = "tensor"
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "per", ("tensor", "channel"))
        check_exactly_one(self, ("bits", "clusters", "error"))
        if self.bits is not None:
            check_count(self, "bits")
            if self.bits > 8:
                raise wrong(self, "bits", "lie in 1 to 8")
        if self.clusters is not None:
            check_count(self, "clusters", least=2)
            if self.clusters > 1 << 16:
                raise wrong(self, "clusters", "lie in 2 to 65536")
        if self.error is not None:
            check_fraction(self, "error")

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of clusters to try, the fewest first."""
        if self.error is not None:
            return tuple(1 << bits for bits in range(1, 9))
        return (self.clusters if self.clusters is not None else 1 << (self.bits or 0),)

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Cluster every site that fits the options."""
        report = self.report()
        sites = self.candidates(model, report)
        for site in bench.progress.track(sites, label=self.name, total=len(sites)):
            try:
                self._share(model, site, report)
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
        return report

    def _share(self, model: Model, site: Site, report: Report) -> None:
        """Cluster one site; what a large one becomes is measured and forgotten."""
        layout, old = Layout.of(site), values_of(site.weight)
        weight = old.load()
        zeros = sum(int(np.count_nonzero(piece == 0)) for piece in pieces(weight))
        sparse = zeros > SPARSE * weight.size
        shared, values, error = self._choose(layout, weight, keep_zero=sparse)
        if old.nbytes < LAZY:
            model.replace_weight(site.weight, shared(weight))
        else:
            model.replace_weight(site.weight, lambda: shared(old.load()))
        kept = f", {zeros / site.size:.1%} zeros kept" if sparse else ""
        report.change(
            site.name,
            f"{values} clusters{self._each()}{kept}",
            bytes_before=site.nbytes,
            bytes_after=site.nbytes,
            error=error,
        )

    def _choose(self, layout: Layout, weight: Array, *, keep_zero: bool) -> tuple[Callable[[Array], Array], int, float]:
        """The map to the clusters, how many there are, and the error, for the first number of them that suffices.

        Raises:
            RefusalError: none suffices, or it saves nothing.
        """
        error = math.inf
        for count in self.counts:
            self._refuse_what_saves_nothing(layout, weight.dtype.itemsize, count)
            shared, values = self._cluster(layout, weight, count, keep_zero=keep_zero)
            error = relative_error(weight, shared(weight))
            if error == 0:
                raise RefusalError(f"has no more than {count} distinct values{self._each()} already")
            if self.error is None or error <= self.error:
                return shared, values, error
        raise RefusalError(f"needs more than 8 bits: the error of 256 clusters{self._each()} is {error:.2g}")

    def _cluster(
        self, layout: Layout, weight: Array, count: int, *, keep_zero: bool
    ) -> tuple[Callable[[Array], Array], int]:
        """The function that maps the weight to its clusters, and how many there are."""
        try:
            if self.per == "tensor":
                centroids, _ = kmeans_1d(weight, count, keep_zero=keep_zero)
                return _by_tensor(centroids), centroids.size
            books, _ = kmeans_rows(layout.to_rows(weight), count, keep_zero=keep_zero)
            return _by_channel(layout, books), count
        except ValueError as error:  # weights that are no numbers
            raise RefusalError(str(error)) from error

    def _refuse_what_saves_nothing(self, layout: Layout, itemsize: int, count: int) -> None:
        """Refuse where codes and codebook take no less than the weights."""
        books = layout.rows if self.per == "channel" else 1
        size = math.prod(layout.shape)
        bits = math.ceil(math.log2(count))
        stored = math.ceil(size * bits / 8) + books * count * itemsize
        if stored >= size * itemsize:
            raise RefusalError(
                f"{count} clusters{self._each()} save nothing: {bits}-bit codes and {books * count} values "
                f"take {stored} bytes, the weight {size * itemsize}"
            )

    def _each(self) -> str:
        return " a channel" if self.per == "channel" else ""


def _by_tensor(centroids: Floats) -> Callable[[Array], Array]:
    """Every weight to the nearest centroid; in the weight's own dtype."""

    def shared(weight: Array) -> Array:
        return centroids.astype(weight.dtype)[assign(weight, centroids)]

    return shared


def _by_channel(layout: Layout, books: Floats) -> Callable[[Array], Array]:
    """Every weight to the nearest centroid of its row."""
    shelves = [np.unique(book) for book in books]

    def shared(weight: Array) -> Array:
        rows = layout.to_rows(weight)
        result = np.empty(rows.shape, weight.dtype)
        for row, book, target in zip(rows, shelves, result, strict=True):
            target[...] = book.astype(weight.dtype)[assign(row, book)]
        return layout.from_rows(result)

    return shared
