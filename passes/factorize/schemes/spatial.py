"""A two-dimensional kernel as a column and a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import ChainScheme, Ranks
from onnxpress.passes.factorize.schemes.layer import Layer, refuse_given_shape
from onnxpress.passes.factorize.schemes.stages import Form, Stage
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import spatial_matrix
from onnxpress.passes.kernels.starts import spatial_start
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


class SpatialScheme(ChainScheme):
    """k x 1 to r channels, then 1 x k to out (Jaderberg et al., 2014), in closed form (Tai et al., 2016)."""

    name: ClassVar[str] = "spatial"

    def refuse(self, site: Site) -> None:
        """Refuse kernels without two sides.

        Raises:
            RefusalError: names the kernel.
        """
        layer = Layer.of(site)
        if not has_two_sides(layer):
            what = f"a {layer.described()} kernel" if layer.convolves else "no kernel"
            raise RefusalError(f"has {what}; k x 1 and 1 x k need two sides of at least 2")
        refuse_given_shape(site)

    def ranks(self, site: Site) -> Ranks:
        """The smaller side of the matrix [out·kw, in·kh]."""
        layer = Layer.of(site)
        height, width = layer.sides
        return (min(layer.out * width, layer.channels * height),)

    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """Vertical, horizontal."""
        (rank,) = ranks
        stages = (Stage("vertical", layer.channels, rank, (0,)), Stage("horizontal", rank, layer.out, (1,)))
        return Form(layer, stages, rank)

    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """[out·kw, in·kh]."""
        return (spatial_matrix(kernel),)

    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """By singular values."""
        return spatial_start(kernel, metric, ranks[0]).factors[::-1]


def has_two_sides(layer: Layer) -> bool:
    """Whether a kernel is two-dimensional, and wider than 1 both ways."""
    return len(layer.sides) == 2 and min(layer.sides) > 1
