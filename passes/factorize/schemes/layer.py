"""A linear layer as factorizations see it: kernels [out, in, *sides], one for each group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.factorize.recurrent import RECURRENT, refuse_state
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import DEFAULT_DOMAINS
from onnxpress.rewriter.sites import Site

CONVOLUTIONS = ("Conv", "ConvTranspose")
_SPLIT = (*CONVOLUTIONS, "Gemm", "MatMul", *RECURRENT, "Gather")


@dataclass(frozen=True, slots=True)
class Layer:
    """What schemes know of a weight; equal for weights of the same geometry.

    As rows [groups·out, in·∏ sides] its weight is ordered as `Layout.to_rows` has it; those of a ConvTranspose, too,
    are group by group.

    Attributes:
        op: `Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `LSTM`, `GRU`, `RNN`, or `Gather` for a table of rows.
        groups: of a convolution, else 1.
        out: outputs of a group; of a recurrent layer the gates of all directions.
        channels: inputs of a group.
        sides: of the kernel; empty for matrices.
        strides: along the sides; the largest where several nodes share the weight.
        layout: of the stored array.
    """

    op: str
    groups: int
    out: int
    channels: int
    sides: tuple[int, ...]
    strides: tuple[int, ...]
    layout: Layout

    @classmethod
    def of(cls, site: Site) -> Layer:
        """The layer that a site's weight belongs to.

        Raises:
            RefusalError: it is none that a chain can replace.
        """
        if site.op not in _SPLIT or (site.node.domain or "") not in DEFAULT_DOMAINS:
            raise RefusalError(f"is a weight of {site.op}; only those of {', '.join(_SPLIT)} are split")
        layout = Layout.of(site)
        if site.op in CONVOLUTIONS:
            return cls._convolution(site, layout)
        if site.op in RECURRENT:
            refuse_state(site)
            return cls(site.op, 1, layout.rows, layout.shape[-1], (), (), layout)
        if (count := math.prod(layout.shape[:-2])) != 1:
            raise RefusalError(f"holds {count} independent matrices")
        if site.op == "Gemm" and site.uses[0].index == 0:
            raise RefusalError("is the left operand of a Gemm; only the right one is split")
        return cls(site.op, 1, layout.rows, math.prod(layout.shape) // max(1, layout.rows), (), (), layout)

    @classmethod
    def _convolution(cls, site: Site, layout: Layout) -> Layer:
        groups = {int(use.node.attrs.get("group", 1)) for use in site.uses}
        if len(groups) > 1:
            raise RefusalError(f"is shared by convolutions of {' and '.join(map(str, sorted(groups)))} groups")
        (count,) = groups
        first, second, *sides = layout.shape
        transposed = site.op == "ConvTranspose"
        if (first // count) * count != first:
            raise RefusalError(f"has {first} channels, which {count} groups do not divide")
        out, channels = (second, first // count) if transposed else (first // count, second)
        default = [1] * len(sides)
        every = np.array([use.node.attrs.get("strides") or default for use in site.uses])
        strides = tuple(int(stride) for stride in every.max(axis=0))
        return cls(site.op, count, out, channels, tuple(sides), strides, layout)

    @property
    def width(self) -> int:
        """Inputs of one output: in·∏ sides."""
        return self.channels * math.prod(self.sides)

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return math.prod(self.sides)

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution of any kind."""
        return self.op in CONVOLUTIONS

    def to_rows(self, stored: Array) -> Array:
        """The stored array as rows [groups·out, in·∏ sides]."""
        if self.op != "ConvTranspose":
            return self.layout.to_rows(stored)
        wide = stored.reshape(self.groups, self.channels, self.out, self.taps)
        return wide.transpose(0, 2, 1, 3).reshape(self.groups * self.out, self.width)

    def from_rows(self, rows: Array) -> Array:
        """Rows in the stored layout again, contiguous."""
        if self.op != "ConvTranspose":
            return self.layout.from_rows(rows)
        wide = rows.reshape(self.groups, self.out, self.channels, self.taps).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(wide).reshape(self.layout.shape)

    def kernels(self, rows: Array) -> Array:
        """Rows as kernels [groups, out, in, *sides]."""
        return rows.reshape(self.groups, self.out, self.channels, *self.sides)

    def described(self) -> str:
        """The size of its kernel, as `3x3`."""
        return "x".join(map(str, self.sides))


def rows_of(site: Site) -> Array:
    """The weight of a site as rows.

    Raises:
        RefusalError: it is of no linear layer, or some of it is not finite.
    """
    layer, array = Layer.of(site), site.array()
    if not np.isfinite(array).all():
        raise RefusalError("holds values that are not finite")
    return layer.to_rows(array)


def refuse_given_shape(site: Site) -> None:
    """Refuse a ConvTranspose that states the shape of its output, where no single link covers all axes of the kernel.

    Raises:
        RefusalError: it does.
    """
    if any(use.node.attrs.get("output_shape") for use in site.uses):
        raise RefusalError("states its output_shape, which no part of a chain can: give pads instead")


def refuse_matrix(site: Site) -> Layer:
    """The layer of a kernel of several positions.

    Raises:
        RefusalError: it is no convolution, or has one position only.
    """
    layer = Layer.of(site)
    if not layer.convolves:
        raise RefusalError(f"is a weight of {layer.op}; only Conv and ConvTranspose are split this way")
    if layer.taps == 1:
        raise RefusalError(f"has a {layer.described()} kernel, which is a matrix: factorize-svd splits it")
    return layer
