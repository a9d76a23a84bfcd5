"""A table of narrow rows, and a product that widens those that are looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.factorize.rank import Cost
from onnxpress.passes.factorize.schemes.base import Ranks
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True)
class _LookupCost(Cost):
    """Of a table.

    Attributes:
        row: multiply-adds for each row that is looked up, which took none before.
    """

    row: int

    def share(self) -> str:
        """What is left, and what comes on top."""
        return f"{self.parameters.value / self.dense.value:.1%} of the parameters, {self.row} multiply-adds a row"


class LookupScheme(ChannelScheme):
    """A table [rows, out] as narrow rows [rows, r] and a product [r, out] (Chen et al., "GroupReduce", 2018).

    Smaller and not faster. Its metric is the weight of each row, [1, rows]: how often it is looked up. With it, too,
    the best factors are known in closed form.
    """

    name: ClassVar[str] = "lookup"

    def refuse(self, site: Site) -> None:
        """Refuse what is no table, or one that is read otherwise, too.

        Raises:
            RefusalError: says why.
        """
        if Layer.of(site).op != "Gather":
            raise RefusalError(f"is a weight of {site.op}; only tables that are looked up are split this way")
        layers = {id(use.node) for use in site.uses}
        other = next((node for node in site.weight.outputs if id(node) not in layers), None)
        if other is not None:
            raise RefusalError(f"{other.op} '{other.name}' reads its table, too, which would have to stay beside it")

    def cost(self, site: Site, ranks: Ranks) -> Cost:
        """As `Scheme.cost`; multiply-adds are those of one-hot rows, which nobody computes."""
        found = super().cost(site, ranks)
        return _LookupCost(found.dense, found.parameters, found.multiply_adds, ranks[0] * Layer.of(site).out)
