"""Which way to write a convolution is fastest, measured one node at a time on activations of the size it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.prune.positions.products import Product
from onnxpress.passes.seen import Seen
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.stopwatch import alone, speedups
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.sites import Use, find_sites


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast one way is beside the dense convolution.

    Attributes:
        product: the way.
        speedup: median of the rounds' ratios.
        sure: at least three of four rounds were faster.
    """

    product: Product
    speedup: float
    sure: bool


@dataclass(slots=True)
class Stopwatch:
    """Times products in the place of a convolution; of equal convolutions only the first.

    Attributes:
        bench: providers and threads; of several providers the slowest counts.
        domains: versions of operators, by domain, as the model has them.
        measured: the best way, or why there is none, by what was asked.
    """

    bench: Workbench
    domains: Mapping[str, int]
    measured: dict[tuple[object, ...], Measured | RefusalError] = field(default_factory=dict)

    def best(self, use: Use, weight: Array, products: Sequence[Product], seen: Seen) -> Measured:
        """The fastest of some ways.

        Args:
            use: the convolution.
            weight: as it is now, [out, in/groups, *kernel], with zeros.
            products: ways to write it, at least one.
            seen: the shape of its input.

        Raises:
            RefusalError: none of them can be written here.
        """
        kept = (weight != 0).any(axis=0)
        key = (repr(sorted(use.node.attrs.items())), weight.shape, str(weight.dtype), seen, kept.tobytes())
        if key not in self.measured:
            try:
                self.measured[key] = self._measure(use, weight, products, seen)
            except RefusalError as refusal:
                self.measured[key] = refusal
        found = self.measured[key]
        if isinstance(found, RefusalError):
            raise found
        return found

    def _measure(self, use: Use, weight: Array, products: Sequence[Product], seen: Seen) -> Measured:
        dense = alone(use, weight, seen.shape, self.domains)
        models, written, refusals = [dense], [], []
        for product in products:
            copy = dense.clone()
            constants = [copy.add_weight("part", each) for each in product.weights(weight)]
            try:
                product.write(copy, find_sites(copy)[0].uses[0], constants, seen.spatial)
            except RefusalError as refusal:
                refusals.append(refusal)
                continue
            sweep(copy)
            models.append(copy)
            written.append(product)
        if not written:
            raise refusals[0]
        try:
            slowest, lowest = speedups(models, seen.shape, weight.dtype, self.bench)
        except (ModelError, FeedError) as error:  # some types and sizes no provider can run
            raise RefusalError(f"nothing could be timed: {error}") from error
        best = int(np.argmax(slowest))
        return Measured(written[best], float(slowest[best]), bool(lowest[best] > 1))
