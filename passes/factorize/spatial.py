"""A two-dimensional convolution as a column and a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.chain import FactorizePass, Link, Plan
from onnxpress.passes.factorize.conv import along, conv_kernel, sides, strides
from onnxpress.passes.factorize.matrix import split_matrix
from onnxpress.passes.factorize.rank import Cost, Products, RankedPass
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.lowrank import spatial_factors, spatial_matrix
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeSpatial(FactorizePass):
    """Split each k x k Conv into k x 1 then 1 x k (Jaderberg et al., 2014), in closed form (Tai et al., 2016).

    The rank is the number of channels between, at most min(in·k, out·k).
    """

    name: ClassVar[str] = "factorize-spatial"

    def plan(self, site: Site, model: Model, bench: Workbench) -> Plan:
        """The two layers for one Conv."""
        kernel = conv_kernel(site)
        if not has_two_sides(kernel):
            raise RefusalError(f"has a {sides(kernel)} kernel; k x 1 and 1 x k need two sides of at least 2")
        return plan_spatial(self, site, kernel)


def has_two_sides(kernel: Array) -> bool:
    """Whether a kernel is two-dimensional, and wider than 1 both ways."""
    return kernel.ndim == 4 and min(kernel.shape[2:]) > 1


def plan_spatial(rule: RankedPass, site: Site, kernel: Array) -> Plan:
    """The column and the row for a kernel [out, in, kh, kw].

    Raises:
        RefusalError: the rank saves nothing.
    """
    out, channels, height, width = kernel.shape
    # the column strides along its own axis only, so it runs at each position that the row skips
    wide = strides(site)[1]

    def cost_of(rank: int) -> Cost:
        return Cost(
            dense=Products(((out, channels, height, width),)),
            parameters=Products(((channels, height), (out, width)), rank),
            multiply_adds=Products(((channels, height, wide), (out, width)), rank),
        )

    split = split_matrix(rule, spatial_matrix(kernel), cost_of)
    vertical, horizontal = spatial_factors(split.left, split.right, kernel.shape)
    links = (
        Link("vertical", vertical, along((height, width), 0)),
        Link("horizontal", horizontal, along((height, width), 1)),
    )
    return Plan(split.action, links, split.error)
