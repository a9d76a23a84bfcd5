"""Weight sharing by chance: a hash of its place tells which weights share a value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from onnxpress.passes.jobs import Stored
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.hashing import bucket_means, spread
from onnxpress.passes.selection import (
    Layout,
    RefusalError,
    check_count,
    check_exactly_one,
    check_part,
    wrong,
)
from onnxpress.passes.share.alone import AlonePass, Shared
from onnxpress.passes.share.saving import check_saving
from onnxpress.passes.storing import narrowed


@dataclass(frozen=True, kw_only=True)
class ShareHash(AlonePass):
    """Random weight sharing (Chen et al., "Compressing Neural Networks with the Hashing Trick", 2015).

    The hash of output, input and seed tells the bucket of a weight; all weights of a bucket take their mean, which is
    the best value for them. It needs no samples and looks at no weight to choose who shares.

    It is here to compare with: the paper trains the network with its buckets. Without that, a bucket of n weights keeps
    about 1/n of their energy, so the outputs suffer far more than with `share-kmeans` at the same size.

    Attributes:
        buckets: distinct values of a weight, 2 or more; exactly one of `buckets` and `ratio`.
        ratio: in (0, 1): buckets as a part of the weights of each site.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "share-hash"
    buckets: int | None = None
    ratio: float | None = None
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("buckets", "ratio"))
        if self.buckets is not None:
            check_count(self, "buckets", least=2)
            if self.buckets >= 1 << 32:
                raise wrong(self, "buckets", "be below 2^32, which is what the hash tells apart")
        if self.ratio is not None:
            check_part(self, "ratio")

    def shared(self, weight: Stored, *, seed: int) -> Shared:
        """The weights with the means of their buckets.

        Raises:
            RefusalError: so many buckets save nothing, or the weights are alike in each already, or no numbers.
        """
        layout, array, hashed = weight.layout, weight.array, seed % 2**32
        buckets = self._buckets(array)
        try:
            means = bucket_means(layout.to_rows(array), buckets, seed=hashed)
        except ValueError as failure:
            raise RefusalError(str(failure)) from failure
        values = narrowed(means, array.dtype)
        made = partial(_spread, layout, values, hashed)
        error = relative_error(array, made(array))
        if error == 0:
            raise RefusalError(f"its weights are alike in each of {buckets} buckets already")
        said = f"{buckets} buckets by hash, {8 * values.nbytes / array.size:.2f} bits a weight beside codes"
        return Shared(made, said, error)

    def _buckets(self, array: Array) -> int:
        """How many buckets there are.

        Raises:
            RefusalError: so many that they save nothing.
        """
        buckets = self.buckets if self.buckets is not None else max(2, round((self.ratio or 0) * array.size))
        check_saving(array.size, array.itemsize, codes=buckets, what=f"{buckets} buckets")
        return buckets


def _spread(layout: Layout, values: Array, seed: int, weight: Array) -> Array:
    """The value of the bucket of each weight."""
    return layout.from_rows(spread(values, (layout.rows, weight.size // layout.rows), seed=seed))
