"""Layers as two thinner ones, by singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import CONVOLUTIONS, Layer
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme, has_two_sides
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.passes.selection import RefusalError, check_choice
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeSVD(FactorizePass):
    """Split each layer in two by its singular values, the best approximation of a rank (Eckart and Young, 1936).

    MatMul and Gemm become two; a Conv of 1x1 becomes two (Denton et al., 2014). With samples the singular values are
    those of what the layer gives, in closed form, too.

    Attributes:
        conv: what other convolutions become: `spatial`, k x 1 and 1 x k (Jaderberg et al., 2014; Tai et al., 2016),
            where the kernel has two sides, else as `channel`: k x k with few outputs, then 1x1 (Zhang et al., 2016).
            `none` leaves all convolutions alone.
    """

    name: ClassVar[str] = "factorize-svd"
    conv: Literal["spatial", "channel", "none"] = "spatial"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "conv", ("spatial", "channel", "none"))

    def scheme(self, site: Site) -> Scheme:
        """By the kernel."""
        if self.conv == "none" and site.op in CONVOLUTIONS:
            raise RefusalError(f"is a {site.op}, which conv 'none' leaves alone")
        if self.conv == "spatial" and has_two_sides(Layer.of(site)):
            return SpatialScheme()
        return ChannelScheme()
