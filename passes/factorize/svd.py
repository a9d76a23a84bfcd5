"""Layers as two thinner ones, by singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.lookup import refuse_other_tables
from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import CONVOLUTIONS, Layer
from onnxpress.passes.factorize.schemes.lookup import LookupScheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme, has_two_sides
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, check_choice, check_flag
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeSVD(FactorizePass):
    """Split each layer in two by its singular values, the best approximation of a rank (Eckart and Young, 1936).

    MatMul and Gemm become two; a Conv of 1x1 becomes two (Denton et al., 2014). What an LSTM, GRU or RNN reads is
    narrowed by a MatMul in front of it. With samples the singular values are those of what the layer gives, in closed
    form, too.

    Attributes:
        conv: what other convolutions become: `spatial`, k x 1 and 1 x k (Jaderberg et al., 2014; Tai et al., 2016),
            where the kernel has two sides, else as `channel`: k x k with few outputs, then 1x1 (Zhang et al., 2016).
            `none` leaves all convolutions alone.
        embeddings: split tables that are looked up, too: a narrow table, and a MatMul that widens its rows. That is
            smaller, not faster. With samples, rows count by how often they are looked up.
    """

    name: ClassVar[str] = "factorize-svd"
    conv: Literal["spatial", "channel", "none"] = "spatial"
    embeddings: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "conv", ("spatial", "channel", "none"))
        check_flag(self, "embeddings")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Factorize every site that is made smaller by it."""
        report = super().apply(model, bench)
        if self.embeddings:
            refuse_other_tables(model, report)
        return report

    def scheme(self, site: Site) -> Scheme:
        """By the kernel."""
        if site.op == "Gather" and self.embeddings:
            return LookupScheme()
        if self.conv == "none" and site.op in CONVOLUTIONS:
            raise RefusalError(f"is a {site.op}, which conv 'none' leaves alone")
        if self.conv == "spatial" and has_two_sides(Layer.of(site)):
            return SpatialScheme()
        return ChannelScheme()
