"""A convolution between fewer channels: pointwise, narrow, pointwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.tucker import TuckerScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeTucker(FactorizePass):
    """Split each Conv by a Tucker-2 decomposition of its channels (Kim et al., 2016).

    Conv [out, in, *k] becomes 1x1 to r_in channels, k to r_out, 1x1 to out; a side of full rank needs no layer of its
    own. `energy` is kept by both sides together; with `ratio` both ranks keep the same energy; `rank` holds for both
    sides.
    """

    name: ClassVar[str] = "factorize-tucker"

    def scheme(self, site: Site) -> Scheme:
        """First, core, last."""
        return TuckerScheme()
