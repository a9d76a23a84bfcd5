"""A convolution as a grouped one between two orders of its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Link
from onnxpress.passes.factorize.conv import along
from onnxpress.passes.factorize.rank import Cost, Products
from onnxpress.passes.factorize.schemes.base import Factors, as_stored
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.factorize.schemes.ranks import Ranks
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.groupings import IntArray, block_diagonal
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class GroupFactors:
    """A block-diagonal weight.

    Attributes:
        layer: what it replaces.
        outputs: channels of each group, [groups, out / groups].
        inputs: the same of the input, [groups, in / groups].
        weights: [groups, out / groups, (in / groups)·taps].
    """

    layer: Layer
    outputs: IntArray
    inputs: IntArray
    weights: Array

    def dense(self) -> Float64Array:
        """As `Factors.dense`."""
        layer = self.layer
        wide = np.zeros((layer.out, layer.channels, layer.taps))
        for outputs, inputs, weights in zip(self.outputs, self.inputs, self.weights, strict=True):
            wide[np.ix_(outputs, inputs)] = weights.reshape(len(outputs), len(inputs), -1)
        return wide.reshape(layer.out, -1)

    def links(self) -> tuple[Link, ...]:
        """The inputs in order, the convolution, which takes the bias in its own order, the outputs in order."""
        layer, count = self.layer, len(self.weights)
        inputs, outputs = self.inputs.reshape(-1), self.outputs.reshape(-1)
        wide = self.weights.reshape(count, -1, self.inputs.shape[1], *layer.sides)
        if layer.op == "ConvTranspose":
            wide = wide.swapaxes(1, 2)
        axes = range(len(layer.sides))
        attributes = along(layer.sides, *axes, group=count, transposed=layer.op == "ConvTranspose")
        kernel = wide.reshape(-1, *wide.shape[2:])
        links = [Link("grouped", kernel, attributes, bias=True, order=None if _ordered(outputs) else outputs)]
        if not _ordered(inputs):
            links.insert(0, _gather("inputs", inputs))
        if not _ordered(outputs):
            links.append(_gather("outputs", np.argsort(outputs)))
        return tuple(links)

    def stored(self, dtype: np.dtype[Any]) -> GroupFactors:
        """As `Factors.stored`."""
        return GroupFactors(self.layer, self.outputs, self.inputs, as_stored(self.weights, dtype))


class GroupScheme:
    """Channels shared out among groups that need each other most (Denton et al., 2014), as one grouped convolution.

    The rank is the number of inputs that each output still reads: in / groups.
    """

    name: ClassVar[str] = "groups"
    counts_channels: ClassVar[bool] = False

    def refuse(self, site: Site) -> None:
        """Refuse what is no convolution of one group, or cannot have more.

        Raises:
            RefusalError: says why.
        """
        layer = Layer.of(site)
        if not layer.convolves:
            raise RefusalError(f"is a weight of {layer.op}; only Conv and ConvTranspose have groups")
        if layer.groups > 1:
            raise RefusalError(f"has {layer.groups} groups already")
        if math.gcd(layer.out, layer.channels) == 1:
            raise RefusalError(
                f"has {layer.out} outputs and {layer.channels} inputs, which no number of groups divides"
            )
        if any(isinstance(use.node.inputs[2], gs.Variable) for use in site.uses if len(use.node.inputs) > 2):
            raise RefusalError("reads a bias that is computed, so it cannot be put in another order")

    def ranks(self, site: Site) -> Ranks:
        """All inputs."""
        return (Layer.of(site).channels,)

    def top(self, site: Site) -> int:
        """As `Scheme.top`."""
        return Layer.of(site).channels

    def at(self, site: Site, rank: int) -> Ranks:
        """The most inputs of a group up to `rank`, or the fewest there can be."""
        every = [each for (each,) in self.ladder(site, 1)]
        return (max([each for each in every if each <= rank], default=every[0]),)

    def even(self, site: Site, rank: int) -> Ranks:
        """As `Scheme.at`."""
        return self.at(site, rank)

    def ladder(self, site: Site, multiple: int) -> tuple[Ranks, ...]:
        """Inputs of a group for every number of groups that divides the channels."""
        layer = Layer.of(site)
        common = math.gcd(layer.out, layer.channels)
        return tuple((layer.channels // count,) for count in range(common, 0, -1) if common % count == 0)

    def cost(self, site: Site, ranks: Ranks) -> Cost:
        """What layer and chain take; channels are put in order without multiplying."""
        layer, (inputs,) = Layer.of(site), ranks
        both = Products(((layer.out, inputs, *layer.sides),))
        return Cost(Products(((layer.out, layer.channels, *layer.sides),)), both, both)

    def by_energy(self, site: Site, target: Array, metric: Array | None, energy: float) -> Ranks | None:
        """Nothing tells it beforehand."""
        return None

    def by_vbmf(self, site: Site, target: Array) -> Ranks:
        """Groups have none.

        Raises:
            RefusalError: always.
        """
        raise RefusalError("is to be parted into groups, of which variational Bayes knows nothing")

    def fit(
        self,
        site: Site,
        target: Array,
        metric: Array | None,
        ranks: Ranks,
        seed: int,
        start: Factors | None = None,
    ) -> GroupFactors:
        """As `Scheme.fit`; for the groups that are found the weights are exact."""
        layer = Layer.of(site)
        seen = None if metric is None else metric[0]
        found = block_diagonal(target, seen, layer.channels // ranks[0], taps=layer.taps)
        return GroupFactors(layer, found.outputs, found.inputs, found.weights)


def _ordered(channels: IntArray) -> bool:
    return bool((np.diff(channels) > 0).all())


def _gather(suffix: str, channels: IntArray) -> Link:
    return Link(suffix, channels.astype(np.int64), lambda node: {"axis": 1}, op="Gather")
