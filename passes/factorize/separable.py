"""A convolution as depthwise, pointwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.separable import SeparableScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeSeparable(FactorizePass):
    """Write each Conv as a sum of depthwise-separable ones (Guo et al., "Network Decoupling", 2018).

    Conv [out, in, *k] becomes s filters of k for each input channel, then 1x1. Its `rank` is s, at most the number of
    taps; multiples make no sense for it.
    """

    name: ClassVar[str] = "factorize-separable"

    def scheme(self, site: Site) -> Scheme:
        """Depthwise, pointwise."""
        return SeparableScheme()
