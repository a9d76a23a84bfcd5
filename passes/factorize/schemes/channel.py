"""Fewer channels between: a narrow layer, and a pointwise one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import rank_by_energy
from onnxpress.passes.kernels.whitened import whitened_svd
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


class ChannelScheme(ChainScheme):
    """W [out, in·∏ sides] of rank r: k to r channels, then 1x1 to out (Denton et al., 2014; Zhang et al., 2016).

    With a metric, too, the best factors are known in closed form, and with them the error at every rank.
    """

    name: ClassVar[str] = "channel"
    closed: ClassVar[bool] = True

    def refuse(self, site: Site) -> None:
        """Refuse what is no layer that multiplies.

        Raises:
            RefusalError: it is none.
        """
        if Layer.of(site).op == "Gather":
            raise RefusalError("is an embedding: a look-up needs no multiply-adds, its factors would")

    def ranks(self, site: Site) -> Ranks:
        """The smaller side of the matrix."""
        layer = Layer.of(site)
        return (min(layer.out, layer.width),)

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """Narrow, wide."""
        (rank,) = ranks
        axes = tuple(range(len(layer.sides)))
        stages = (Stage("narrow", layer.channels, rank, axes), Stage("wide", rank, layer.out))
        return Form(layer, stages, rank)

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """The matrix."""
        return (kernel.reshape(len(kernel), -1),)

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By singular values."""
        left, right = whitened_svd(kernel.reshape(len(kernel), -1), metric).split(ranks[0])
        return right, left

    def values(self, site: Site, target: Array, metric: Array | None) -> Float64Array:
        """The error of outputs (of weights, without a metric) at rank r is the root of Σ values[r:]²; of all groups."""
        kernels = Layer.of(site).kernels(np.asarray(target, np.float64))
        moments = [None] * len(kernels) if metric is None else list(metric)
        every = [
            whitened_svd(kernel.reshape(len(kernel), -1), moment).values
            for kernel, moment in zip(kernels, moments, strict=True)
        ]
        values: Float64Array = np.linalg.norm(every, axis=0)
        return values

    def by_energy(self, site: Site, target: Array, metric: Array | None, energy: float) -> Ranks | None:
        """Exactly, of the outputs where there is a metric."""
        return (rank_by_energy(self.values(site, target, metric), energy),)


class SVDScheme(ChannelScheme):
    """The same for matrices (Eckart and Young, 1936): MatMul, Gemm, convolutions of one position, recurrent layers."""

    name: ClassVar[str] = "svd"

    def refuse(self, site: Site) -> None:
        """Refuse wider kernels.

        Raises:
            RefusalError: it has one.
        """
        super().refuse(site)
        layer = Layer.of(site)
        if math.prod(layer.sides) > 1:
            raise RefusalError(f"has a {layer.described()} kernel, which is no matrix")
