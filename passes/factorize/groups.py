"""A convolution as a grouped one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.groups import GroupScheme
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.passes.selection import wrong
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeGroups(FactorizePass):
    """Share the channels of each Conv out among groups, and drop the weights between them (Denton et al., 2014).

    Conv [out, in, *k] becomes one of several groups, between two Gathers that put the channels in order. Its `rank` is
    the number of inputs that each output still reads, in / groups: the largest that divides the channels.
    """

    name: ClassVar[str] = "factorize-groups"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.vbmf:
            raise wrong(self, "vbmf", "be false, for groups have no rank to be found")

    def scheme(self, site: Site) -> Scheme:
        """In order, grouped, in order."""
        return GroupScheme()
