"""A kernel as a train of small ones, one for each of its axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer, refuse_given_shape, refuse_matrix
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.starts import train_limits, train_start
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


class TrainScheme(ChainScheme):
    """1x1, then k x 1, 1 x k, then 1x1: the tensor train of [in, *sides, out] (Oseledets, 2011).

    Ranks are the channels between, in the order of computation: r_0 to r_d for d sides. An end of full rank needs no
    layer of its own, and sides of 1 have none.
    """

    name: ClassVar[str] = "train"

    def refuse(self, site: Site) -> None:
        """Refuse what has not two sides at least: with one it is Tucker's.

        Raises:
            RefusalError: names the kernel.
        """
        layer = refuse_matrix(site)
        if len(_wide(layer.sides)) < 2:
            raise RefusalError(f"has a {layer.described()} kernel; a train needs two sides of at least 2")
        refuse_given_shape(site)

    def ranks(self, site: Site) -> Ranks:
        """At each place the smaller of what lies before and behind."""
        layer = Layer.of(site)
        return train_limits((layer.out, layer.channels, *_wide(layer.sides)))

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """First, one for each wide side, last; the ends only where they are not full."""
        axes = [axis for axis, side in enumerate(layer.sides) if side > 1]
        bonds = _reached(ranks, (layer.channels, *_wide(layer.sides)))
        first, last = bonds[0] < layer.channels, bonds[-1] < layer.out
        flat = tuple(axis for axis, side in enumerate(layer.sides) if side == 1)  # may have strides and pads, too
        stages = [
            Stage(f"side{axis}", reads, writes, tuple(sorted((axis, *flat))) if axis == axes[0] else (axis,))
            for axis, reads, writes in zip(axes, bonds[:-1], bonds[1:], strict=True)
        ]
        before = [Stage("first", layer.channels, bonds[0])] if first else []
        behind = [Stage("last", bonds[-1], layer.out)] if last else []
        return Form(layer, (*before, *stages, *behind))

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """[what lies before, what lies behind] at each place."""
        train = np.moveaxis(_narrow(kernel), 0, -1)
        return tuple(train.reshape(math.prod(train.shape[:at]), -1) for at in range(1, train.ndim))

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By singular values, from the inputs on."""
        narrow = _narrow(kernel)
        last, *sides, first = train_start(narrow, metric, _reached(ranks, narrow.shape[1:])).factors
        parts = [each.swapaxes(1, 2) for each in reversed(sides)]  # [writes, reads, side]
        before, behind = [first], [last]
        if len(first) == kernel.shape[1]:
            parts[0], before = np.einsum("qsy,si->qiy", parts[0], first), []
        if last.shape[1] == len(kernel):
            parts[-1], behind = np.einsum("or,rqx->oqx", last, parts[-1]), []
        return *before, *parts, *behind


def _wide(sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in sides if side > 1)


def _narrow(kernel: Float64Array) -> Float64Array:
    """A kernel without its sides of 1."""
    return kernel.reshape(*kernel.shape[:2], *_wide(kernel.shape[2:]))


def _reached(ranks: Ranks, sizes: tuple[int, ...]) -> Ranks:
    """Ranks that each rank before allows."""
    found, most = [], 1
    for rank, size in zip(ranks, sizes, strict=True):
        most = min(rank, most * size)
        found.append(most)
    return tuple(found)
