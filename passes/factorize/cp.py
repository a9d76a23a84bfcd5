"""A convolution as pointwise, depthwise, pointwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.cp import CPScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.passes.selection import check_count
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeCP(FactorizePass):
    """Split each Conv by a CP decomposition: a sum of rank-one terms over out, in and taps (Lebedev et al., 2015).

    Conv [out, in, *k] becomes 1x1 to r channels, one filter of k for each channel, 1x1 to out. Lebedev's filters are
    products of one-dimensional ones; whole ones are fewer nodes, depthwise k x k is what runtimes are fast at, and the
    sum comes nearer. Alternating least squares finds the factors, from a start that depends on the seed; with `energy`
    it runs for each rank that a bisection tries.

    Attributes:
        iterations: of alternating least squares on the weights, at most.
    """

    name: ClassVar[str] = "factorize-cp"
    iterations: int = 100

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "iterations")

    def scheme(self, site: Site) -> Scheme:
        """First, depthwise, last."""
        return CPScheme(self.iterations)
