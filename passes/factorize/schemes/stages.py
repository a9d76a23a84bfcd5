"""A chain of layers as a list of stages: what it costs, which einsum it is, and the layers that compute it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.factorize.chain import Link
from onnxpress.passes.factorize.conv import along
from onnxpress.passes.factorize.matrix import matrix_links
from onnxpress.passes.factorize.rank import Cost, Products
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.kernels.arrays import Array, Float64Array

_SIDES = "abcdefgh"
_CHANNELS = "oijklmnpqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Stage:
    """One layer of a chain, for one group of the layer that the chain replaces.

    Its kernel is [writes, reads / groups, *sides], with 1 for the sides it does not cover.

    Attributes:
        suffix: of its name.
        reads: channels.
        writes: channels.
        axes: of the kernel that it covers.
        groups: 1, or as many as it reads: then it is depthwise.
    """

    suffix: str
    reads: int
    writes: int
    axes: tuple[int, ...] = ()
    groups: int = 1

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """Of its kernel."""
        sides = (size if axis in self.axes else 1 for axis, size in enumerate(layer.sides))
        return (self.writes, self.reads // self.groups, *sides)


@dataclass(frozen=True, slots=True)
class Form:
    """A chain before it has numbers.

    Attributes:
        layer: what it replaces.
        stages: in the order of computation.
        common: a size that each of them has, to show in costs; 1 for none.
    """

    layer: Layer
    stages: tuple[Stage, ...]
    common: int = 1

    def cost(self) -> Cost:
        """What one group takes for each position of the output; of a ConvTranspose, of what it reads."""
        layer = self.layer
        dense = (layer.out, layer.channels, *layer.sides) if layer.convolves else (layer.channels, layer.out)
        sizes = [self._term(stage) for stage in self.stages]
        work = [(*size, skipped) for size, skipped in zip(sizes, self._skipped(), strict=True)]
        return Cost(Products((dense,)), Products(tuple(sizes), self.common), Products(tuple(work), self.common))

    def _term(self, stage: Stage) -> tuple[int, ...]:
        sizes = [stage.reads // stage.groups, stage.writes, *(self.layer.sides[axis] for axis in stage.axes)]
        if self.common > 1:
            del sizes[1 if stage.writes == self.common else 0]
        return tuple(sizes)

    def _skipped(self) -> list[int]:
        """How often each stage runs for one run of the layer: more before strides, or behind a ConvTranspose."""
        strides, covered, found = self.layer.strides, set[int](), []
        for stage in self.stages:
            done = covered | set(stage.axes)
            if self.layer.op == "ConvTranspose":
                found.append(math.prod(strides[axis] for axis in covered))
            else:
                found.append(math.prod(stride for axis, stride in enumerate(strides) if axis not in done))
            covered = done
        return found

    def expression(self) -> str:
        """The kernel [out, in, *sides] as an einsum of the factors, of the last stage first: `or,rsab,si->oiab`."""
        letters = iter(_CHANNELS[2:])
        reads, terms = "i", []
        sides = _SIDES[: len(self.layer.sides)]
        for index, stage in enumerate(self.stages):
            if stage.groups > 1:
                writes = reads + ("" if stage.writes == stage.reads else next(letters))
                channels = writes
            else:
                writes = "o" if index == len(self.stages) - 1 else next(letters)
                channels = writes + reads
            terms.append(channels + "".join(sides[axis] for axis in stage.axes))
            reads = writes
        return f"{','.join(reversed(terms))}->oi{sides}"

    def factors(self, kernels: Sequence[Array]) -> list[Float64Array]:
        """Kernels of the stages as the expression has them."""
        sizes: list[tuple[int, ...]] = []
        reads: tuple[int, ...] = (self.layer.channels,)
        for stage in self.stages:
            if stage.groups > 1:
                channels = reads + (() if stage.writes == stage.reads else (stage.writes // stage.reads,))
                writes = channels
            else:
                writes = (stage.writes,)
                channels = writes + reads
            sizes.append(channels + tuple(self.layer.sides[axis] for axis in stage.axes))
            reads = writes
        paired = zip(kernels, sizes, strict=True)
        return [np.asarray(kernel, np.float64).reshape(size) for kernel, size in paired][::-1]

    def kernels(self, factors: Sequence[Array]) -> list[Float64Array]:
        """Factors of the expression as kernels of the stages."""
        paired = zip(reversed(factors), self.stages, strict=True)
        return [np.asarray(factor, np.float64).reshape(stage.shape(self.layer)) for factor, stage in paired]

    def links(self, kernels: Sequence[Array]) -> tuple[Link, ...]:
        """The layers that compute it.

        Args:
            kernels: of every stage, those of all groups of the layer one below the other: [groups·writes, ...].
        """
        if not self.layer.convolves:
            suffixes = [stage.suffix for stage in self.stages]
            return matrix_links(self.layer.op, self.layer.layout, suffixes, [np.asarray(each) for each in kernels])
        return tuple(self._link(stage, np.asarray(kernel)) for stage, kernel in zip(self.stages, kernels, strict=True))

    def _link(self, stage: Stage, kernel: Array) -> Link:
        layer = self.layer
        groups = stage.groups * layer.groups
        transposed = layer.op == "ConvTranspose"
        attributes = along(layer.sides, *stage.axes, group=groups, transposed=transposed and bool(stage.axes))
        if not transposed or not stage.axes:  # a pointwise ConvTranspose is a pointwise Conv
            return Link(stage.suffix, kernel, attributes, op="Conv" if transposed else None)
        writes, reads, *sides = kernel.shape
        wide = kernel.reshape(groups, writes // groups, reads, *sides)
        return Link(stage.suffix, wide.swapaxes(1, 2).reshape(groups * reads, writes // groups, *sides), attributes)


def levelled(kernels: Sequence[Array]) -> list[Array]:
    """The same product by kernels of equal root mean square, so that narrow types hold all of them."""
    sizes = np.array([float(np.sqrt(np.mean(np.square(kernel)))) for kernel in kernels])
    if not (sizes > 0).all():
        return list(kernels)
    common = float(np.exp(np.log(sizes).mean()))
    return [kernel * (common / size) for kernel, size in zip(kernels, sizes, strict=True)]
