"""A convolution as a train of one-dimensional ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.train import TrainScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeTrain(FactorizePass):
    """Split each Conv by a tensor train of its axes (Oseledets, 2011; Garipov et al., 2016).

    Conv [out, in, kh, kw] becomes 1x1 to r_0 channels, kh x 1 to r_1, 1 x kw to r_2, 1x1 to out; one of three sides has
    one layer more, and an end of full rank needs none. `energy` is kept by all ranks together; with `ratio` all keep
    the same energy; `rank` holds for all.
    """

    name: ClassVar[str] = "factorize-train"

    def scheme(self, site: Site) -> Scheme:
        """First, one for each side, last."""
        return TrainScheme()
