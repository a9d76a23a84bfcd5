"""A convolution between fewer channels: pointwise, narrow, pointwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.chain import FactorizePass, Link, Plan
from onnxpress.passes.factorize.conv import along, strides, wide_kernel
from onnxpress.passes.factorize.rank import Cost, Products, largest
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lowrank import rank_by_energy
from onnxpress.passes.kernels.tensor import Tucker2, channel_values, tucker2
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeTucker(FactorizePass):
    """Split each Conv by a Tucker-2 decomposition of its channels (Kim et al., 2016).

    Conv [out, in, *k] becomes 1x1 to r_in channels, k to r_out, 1x1 to out; a side of full rank needs no layer of its
    own. `energy` is kept by both sides together; `ratio` takes both ranks in proportion to the channels; `rank` holds
    for both sides.
    """

    name: ClassVar[str] = "factorize-tucker"

    def plan(self, site: Site, model: Model, bench: Workbench) -> Plan:
        """The chain for one Conv."""
        kernel = wide_kernel(site)
        ranks = self._ranks(kernel)
        cost = _cost(kernel, ranks, math.prod(strides(site)))
        if not self.always:
            cost.refuse_if_none_saved(f"ranks {ranks[0]} and {ranks[1]}")
        found = tucker2(kernel, ranks)
        first, core, last = (_as_stored(factor, kernel) for factor in (found.first, found.core, found.last))
        error = relative_error(kernel, Tucker2(first, core, last).dense())
        action = f"ranks {ranks[0]} of {kernel.shape[0]} and {ranks[1]} of {kernel.shape[1]}, {cost.share()}"
        return Plan(action, _links(kernel, found), error)

    def _ranks(self, kernel: Array) -> tuple[int, int]:
        """Ranks of output and input channels."""
        out, channels = kernel.shape[:2]
        if self.energy is not None:
            # what is lost is at most what both sides lose (De Lathauwer et al., 2000), so each may lose half
            each = 1 - (1 - self.energy) / 2
            ranks = [self.up(rank_by_energy(values, each), values.size) for values in channel_values(kernel)]
            return ranks[0], ranks[1]
        if self.rank is not None:
            return min(self.rank, out), min(self.rank, channels)
        return self._by_ratio(kernel, self.ratio or 0.0)

    def _by_ratio(self, kernel: Array, ratio: float) -> tuple[int, int]:
        """The largest ranks in proportion to the channels whose factors fit the ratio."""
        out, channels = kernel.shape[:2]
        top = max(out, channels)

        def ranks(step: int) -> tuple[int, int]:
            return max(1, step * out // top), max(1, step * channels // top)

        def fits(ranks: tuple[int, int]) -> bool:
            cost = _cost(kernel, ranks, 1)
            return cost.parameters.value <= ratio * cost.dense.value

        r_out, r_in = ranks(largest(top, lambda step: fits(ranks(step))))
        found = self._down(r_out, out), self._down(r_in, channels)
        if not fits(found):
            raise RefusalError(f"ratio {ratio:g} is too small: ranks {found[0]} and {found[1]} hold more already")
        return found

    def _down(self, rank: int, full: int) -> int:
        """`rank` rounded down to a multiple of `round_to`, but not to nothing."""
        return rank if rank == full else max(rank - rank % self.round_to, min(self.round_to, full))


def _cost(kernel: Array, ranks: tuple[int, int], skipped: int) -> Cost:
    """Of a chain; the first layer runs at all positions, `skipped` times as many as the output has."""
    out, channels, *sides = kernel.shape
    r_out, r_in = ranks
    first = [] if _merges(r_in, channels, r_out, out) else [(channels, r_in)]
    last = [] if _merges(r_out, out, r_in, channels) else [(r_out, out)]
    core = (r_in, r_out, *sides)
    return Cost(
        dense=Products(((out, channels, *sides),)),
        parameters=Products((*first, core, *last)),
        multiply_adds=Products((*((*term, skipped) for term in first), core, *last)),
    )


def _merges(rank: int, full: int, other: int, other_full: int) -> bool:
    """Whether a side's pointwise layer goes into the core: it would be square and change nothing."""
    return rank == full and other < other_full


def _links(kernel: Array, found: Tucker2) -> tuple[Link, ...]:
    out, channels, *sides = kernel.shape
    (r_out, r_in), pointwise, core = found.core.shape[:2], (1,) * len(sides), found.core
    links = []
    if _merges(r_in, channels, r_out, out):
        core = np.einsum("rs...,si->ri...", core, found.first)
    else:
        links.append(Link("first", found.first.reshape(r_in, channels, *pointwise), along(tuple(sides))))
    no_last = _merges(r_out, out, r_in, channels)
    if no_last:
        core = np.einsum("or,rs...->os...", found.last, core)
    links.append(Link("core", core, along(tuple(sides), *range(len(sides)))))
    if not no_last:
        links.append(Link("last", found.last.reshape(out, r_out, *pointwise), along(tuple(sides))))
    return tuple(links)


def _as_stored(factor: Float64Array, kernel: Array) -> Float64Array:
    return factor.astype(kernel.dtype).astype(np.float64)
