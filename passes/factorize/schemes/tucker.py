"""A kernel between fewer channels: pointwise, narrow, pointwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer, refuse_matrix
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.starts import tucker_start
from onnxpress.rewriter.sites import Site


class TuckerScheme(ChainScheme):
    """1x1 to r_in channels, k to r_out, 1x1 to out (Kim et al., 2016); ranks are (r_out, r_in).

    A side of full rank needs no layer of its own: it would be square and change nothing.
    """

    name: ClassVar[str] = "tucker"

    def refuse(self, site: Site) -> None:
        """Refuse what has no kernel of several positions."""
        refuse_matrix(site)

    def ranks(self, site: Site) -> Ranks:
        """The channels."""
        layer = Layer.of(site)
        return layer.out, layer.channels

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """First, core, last; of full sides at most one."""
        r_out, r_in = ranks
        core = Stage("core", r_in, r_out, tuple(range(len(layer.sides))))
        stages = [core]
        if not _merges(r_in, layer.channels, r_out, layer.out):
            stages.insert(0, Stage("first", layer.channels, r_in))
        if not _merges(r_out, layer.out, r_in, layer.channels):
            stages.append(Stage("last", r_out, layer.out))
        return Form(layer, tuple(stages))

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """Along the outputs, and along the inputs."""
        return kernel.reshape(len(kernel), -1), kernel.swapaxes(0, 1).reshape(kernel.shape[1], -1)

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By higher-order orthogonal iteration."""
        (r_out, r_in), (out, channels) = ranks, kernel.shape[:2]
        last, core, first = tucker_start(kernel, metric, (r_out, r_in)).factors
        if _merges(r_in, channels, r_out, out):
            return np.einsum("rs...,si->ri...", core, first), last
        if _merges(r_out, out, r_in, channels):
            return first, np.einsum("or,rs...->os...", last, core)
        return first, core, last


def _merges(rank: int, full: int, other: int, other_full: int) -> bool:
    """Whether a side's pointwise layer goes into the core."""
    return rank == full and other < other_full
