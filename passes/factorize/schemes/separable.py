"""A kernel as a sum of depthwise-separable ones: depthwise, pointwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer, refuse_matrix
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.starts import separable_start
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


class SeparableScheme(ChainScheme):
    """s filters of k for each input channel, then 1x1 (Guo et al., "Network Decoupling", 2018).

    The rank is the number s of filters.
    """

    name: ClassVar[str] = "separable"
    counts_channels: ClassVar[bool] = False

    def refuse(self, site: Site) -> None:
        """Refuse what has no kernel of several positions, or is depthwise already.

        Raises:
            RefusalError: it is.
        """
        layer = refuse_matrix(site)
        if layer.channels == 1:
            raise RefusalError("reads one channel for each group, so it is depthwise already")

    def ranks(self, site: Site) -> Ranks:
        """The smaller side of each channel's matrix [out, taps]."""
        layer = Layer.of(site)
        return (min(layer.out, layer.taps),)

    def ladder(self, site: Site, multiple: int) -> tuple[Ranks, ...]:
        """Every number of filters: channels are multiples of those of the layer anyway."""
        (full,) = self.ranks(site)
        return tuple((rank,) for rank in range(1, full + 1))

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """Depthwise, pointwise."""
        (terms,) = ranks
        wide = layer.channels * terms
        every = tuple(range(len(layer.sides)))
        stages = (
            Stage("depthwise", layer.channels, wide, every, groups=layer.channels),
            Stage("pointwise", wide, layer.out),
        )
        return Form(layer, stages)

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """Each channel's."""
        return tuple(kernel.reshape(*kernel.shape[:2], -1).swapaxes(0, 1))

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By singular values of each channel."""
        last, first = separable_start(kernel, metric, ranks[0]).factors
        return first, last

    def _spectra(self, site: Site, target: Array) -> tuple[Float64Array, ...]:
        """Of all channels together."""
        every = super()._spectra(site, target)
        return (np.asarray(np.linalg.norm(every, axis=0)),)
