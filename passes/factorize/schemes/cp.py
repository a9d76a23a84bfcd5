"""A kernel as a sum of separable terms: pointwise, depthwise, pointwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer, refuse_matrix
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.starts import cp_start
from onnxpress.passes.kernels.tensor import cp
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True)
class CPScheme(ChainScheme):
    """1x1 to r channels, one filter of k for each, 1x1 to out: a CP decomposition of [out, in, taps].

    Lebedev et al. (2015) take apart the filters, too, into one-dimensional ones. A runtime is fast at depthwise k x k,
    so they stay whole here, and need not be products of others.

    Attributes:
        iterations: of alternating least squares, at most.
    """

    name: ClassVar[str] = "cp"
    iterations: int = 100

    def refuse(self, site: Site) -> None:
        """Refuse what has no kernel of several positions."""
        refuse_matrix(site)

    def ranks(self, site: Site) -> Ranks:
        """So many terms that each fiber along the longest of the three axes has its own."""
        layer = Layer.of(site)
        sizes = layer.out, layer.channels, layer.taps
        return (sizes[0] * sizes[1] * sizes[2] // max(sizes),)

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """First, depthwise, last."""
        (rank,) = ranks
        stages = (
            Stage("first", layer.channels, rank),
            Stage("depthwise", rank, rank, tuple(range(len(layer.sides))), groups=rank),
            Stage("last", rank, layer.out),
        )
        return Form(layer, stages, rank)

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """Along each axis, the taps as one."""
        flat = kernel.reshape(*kernel.shape[:2], -1)
        return tuple(np.moveaxis(flat, axis, 0).reshape(flat.shape[axis], -1) for axis in range(3))

    def by_energy(self, site: Site, target: Array, metric: Array | None, energy: float) -> Ranks | None:
        """Nothing tells it beforehand."""
        return None

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By alternating least squares from singular vectors."""
        (rank,) = ranks
        if metric is not None:
            return cp_start(kernel, metric, rank, seed=seed).factors[::-1]
        found = cp(kernel.reshape(*kernel.shape[:2], -1), rank, seed=seed, iterations=self.iterations)
        return found.first, found.spatial[0].T, found.last
