"""A two-dimensional convolution as a column and a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeSpatial(FactorizePass):
    """Split each k x k Conv into k x 1 then 1 x k (Jaderberg et al., 2014), in closed form (Tai et al., 2016).

    The rank is the number of channels between, at most min(in·k, out·k). With samples, alternating least squares
    start from the closed form.
    """

    name: ClassVar[str] = "factorize-spatial"

    def scheme(self, site: Site) -> Scheme:
        """A column and a row."""
        return SpatialScheme()
