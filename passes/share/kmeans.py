"""Weight sharing: every weight takes the nearest of a few values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes, smallest_unsigned
from onnxpress.passes.kernels.kmeans import STARTS, Start, kmeans_1d, kmeans_rows
from onnxpress.passes.kernels.nearest import assign
from onnxpress.passes.kernels.points import Floats
from onnxpress.passes.selection import (
    Layout,
    RefusalError,
    check_choice,
    check_count,
    check_exactly_one,
    check_fraction,
    wrong,
)
from onnxpress.passes.share.codebooks import CodebookPass
from onnxpress.passes.share.drafts import Codebook, Draft, Weight
from onnxpress.passes.share.saving import check_saving


@dataclass(frozen=True, kw_only=True)
class ShareKMeans(CodebookPass):
    """Cluster the weights of each site into few values (Han et al., 2016, "Deep Compression", section 3).

    One-dimensional k-means, optimal or close to it. The weights stay dense arrays that happen to hold few distinct
    values; `encode` stores them as codes. Zeros of a pruned weight stay zero and take one of the clusters.

    Attributes:
        bits: of a code, 1 to 8, for 2^bits clusters; exactly one of `bits`, `clusters` and `error`.
        clusters: distinct values at most, 2 to 65536.
        error: in (0, 1): each weight gets the fewest bits, 1 to 8, whose error ‖W − W'‖ / ‖W‖ is at most this; one
            that would need more is left alone.
        per: `tensor` for one codebook a weight, `channel` for one each output channel.
        start: `optimal` for the least error, of more than 4096 distinct values within 0.01 %; `exact` for the least
            whatever it takes; `linear`, `density` and `random` start Lloyd's iteration as in the paper, to compare
            with.
        seed: of `random`.
        importance: `hessian` weighs the error of each weight by the second moment of what it reads, from samples (Choi
            et al., 2017, "Towards the Limit of Network Quantization"); with `none` all count alike.
    """

    name: ClassVar[str] = "share-kmeans"
    bits: int | None = None
    clusters: int | None = None
    error: float | None = None
    per: Literal["tensor", "channel"] = "tensor"
    start: Start = "optimal"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "per", ("tensor", "channel"))
        check_choice(self, "start", STARTS)
        check_count(self, "seed", least=0)
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

    def draft(self, weight: Weight) -> Draft:
        """The first number of clusters that suffices.

        Raises:
            RefusalError: none suffices, or it saves nothing.
        """
        error = math.inf
        for count in self.counts:
            books = weight.layout.rows if self.per == "channel" else 1
            named = f"{count} clusters{self._each()}"
            check_saving(weight.array.size, weight.array.dtype.itemsize, codes=count, books=books, what=named)
            book, clusters = self._cluster(weight, count)
            draft = Draft.of(book, weight, f"{clusters} clusters{self._each()}")
            error = draft.error
            if error == 0:
                raise RefusalError(f"has no more than {count} distinct values{self._each()} already")
            if self.error is None or error <= self.error:
                return draft
        raise RefusalError(f"needs more than 8 bits: the error of 256 clusters{self._each()} is {error:.2g}")

    def _cluster(self, weight: Weight, count: int) -> tuple[Codebook, int]:
        """The codebook of a weight, and how many values it has."""
        layout = weight.layout
        try:
            if self.per == "tensor":
                centroids, _ = kmeans_1d(
                    weight.array,
                    count,
                    weights=weight.importance,
                    keep_zero=weight.keep_zero,
                    start=self.start,
                    seed=self.seed,
                )
                return Codebook(layout, centroids[None], partial(assign, centroids=centroids)), centroids.size
            books, _ = kmeans_rows(
                layout.to_rows(weight.array),
                count,
                weights=None if weight.importance is None else layout.to_rows(weight.importance),
                keep_zero=weight.keep_zero,
                start=self.start,
                seed=self.seed,
            )
            return Codebook(layout, books, partial(_by_rows, layout, books)), count
        except ValueError as error:  # weights that are no numbers
            raise RefusalError(str(error)) from error

    def _each(self) -> str:
        return " a channel" if self.per == "channel" else ""


def _by_rows(layout: Layout, books: Floats, array: Array) -> Codes:
    """The number of the nearest centroid of its row for every weight."""
    rows = layout.to_rows(array)
    codes = np.empty(rows.shape, smallest_unsigned(books.shape[1]))
    for row, book, target in zip(rows, books, codes, strict=True):
        target[...] = assign(row, np.unique(book))
    return layout.from_rows(codes)
