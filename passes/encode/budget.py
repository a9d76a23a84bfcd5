"""What loading an encoded model may take, and what of it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxpress.passes.encode.choose import Limits, choose, total_bytes, total_seconds
from onnxpress.passes.encode.loads import Load
from onnxpress.passes.encode.options import Option
from onnxpress.passes.report import Report

_LOAD, _LOAD_WEIGHT = 1 << 31, 16
"""Bytes of memory that loading may take where nobody says, in all and for each weight."""


def load_limit(nbytes: int | None, weights: int) -> int:
    """Bytes of memory that loading may take.

    Args:
        nbytes: that were given; None for the usual.
        weights: elements of all of them.
    """
    return nbytes if nbytes is not None else max(_LOAD, _LOAD_WEIGHT * weights)


@dataclass(slots=True)
class Budget:
    """What loading may take beyond what the dense model takes.

    Attributes:
        limits: in all.
        nbytes: of memory that weights by books take, apart from their codes.
        seconds: that they take.
        free: what would have been chosen if loading might take anything; an option for each weight.
        exceeded: names of the limits that this would not have held.
    """

    limits: Limits
    nbytes: int = 0
    seconds: float = 0.0
    free: Sequence[Option] = ()
    exceeded: frozenset[str] = frozenset()

    def claim(self, load: Load) -> str:
        """What loading one weight takes of what is scarce."""
        parts = []
        if "nbytes" in self.exceeded:
            parts.append(f"{load.nbytes:,} bytes of memory to load, of max_load_bytes = {self.limits.nbytes:,.0f}")
        if "seconds" in self.exceeded:
            parts.append(f"{load.seconds:.3g} seconds more to load, of max_load_seconds = {self.limits.seconds:g}")
        return " and ".join(parts)

    def refused(self, load: Load) -> str | None:
        """Why that cannot be taken as well."""
        if self.nbytes + load.nbytes > self.limits.nbytes:
            return f"{load.nbytes:,} bytes of memory to load, of max_load_bytes = {self.limits.nbytes:,.0f}"
        if self.seconds + load.seconds > self.limits.seconds:
            return f"{load.seconds:.3g} seconds more to load, of max_load_seconds = {self.limits.seconds:g}"
        return None

    def take(self, load: Load) -> None:
        """Take it."""
        self.nbytes += load.nbytes
        self.seconds += load.seconds

    def choose(
        self, choices: Sequence[Sequence[Option]], costs: Mapping[str, int], least: int, report: Report
    ) -> list[Option]:
        """An option for each weight, that together they hold what is left; what that costs is told."""
        left = Limits(self.limits.nbytes - self.nbytes, self.limits.seconds - self.seconds)
        smallest = choose(choices, costs=costs, least=least)
        self.free, self.exceeded = smallest, (exceeded := left.exceeded(smallest))
        if not exceeded:
            chosen = smallest
        else:
            chosen = choose(choices, costs=costs, least=least, limits=left)
            more = f"{sum(o.nbytes for o in chosen) - sum(o.nbytes for o in smallest):,} bytes less would take"
            if "nbytes" in exceeded:
                load, most = self.nbytes + total_bytes(smallest), self.limits.nbytes
                report.skip("graph", f"{more} {load:,} bytes of memory to load, of max_load_bytes = {most:,.0f}")
            if "seconds" in exceeded:
                seconds, longest = self.seconds + total_seconds(smallest), self.limits.seconds
                report.skip("graph", f"{more} {seconds:.3g} seconds more to load, of max_load_seconds = {longest:g}")
        self.take(Load(total_bytes(chosen), total_seconds(chosen)))
        return chosen
