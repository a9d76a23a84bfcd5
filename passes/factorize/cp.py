"""A convolution as pointwise, depthwise, pointwise."""

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
from onnxpress.passes.kernels.tensor import CP, DegenerateError, cp
from onnxpress.passes.selection import RefusalError, check_count
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizeCP(FactorizePass):
    """Split each Conv by a CP decomposition: a sum of rank-one kernels (Lebedev et al., 2015).

    Conv [out, in, *k] becomes 1x1 to r channels, one filter of k for each channel, 1x1 to out. Lebedev's two
    one-dimensional filters are multiplied into one: fewer nodes, and depthwise k x k is what runtimes are fast at.
    Alternating least squares finds the factors, from a start that depends on the seed; with `energy` it runs for each
    rank that a bisection tries.

    Attributes:
        iterations: of alternating least squares, at most.
    """

    name: ClassVar[str] = "factorize-cp"
    iterations: int = 100

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "iterations")

    def plan(self, site: Site, model: Model, bench: Workbench) -> Plan:
        """The chain for one Conv."""
        kernel, skipped = wide_kernel(site), math.prod(strides(site))
        try:
            rank, found = self._decompose(kernel, skipped, bench.seed)
        except DegenerateError as error:
            raise RefusalError(str(error)) from error
        cost = _cost(kernel, rank, skipped)
        return Plan(f"rank {rank}, {cost.share()}", _links(kernel, found), relative_error(kernel, found.dense()))

    def _decompose(self, kernel: Array, skipped: int, seed: int) -> tuple[int, CP]:
        """Rank and factors."""

        def cost_of(rank: int) -> Cost:
            return _cost(kernel, rank, skipped)

        full = kernel.size // max(kernel.shape)  # with so many terms, each fiber has its own
        if self.energy is not None:
            top = full if self.always else largest(full, lambda rank: cost_of(rank).saves())
            ranks = range(self.round_to, top + 1, self.round_to)
            if not ranks and not self.always:
                cost_of(self.round_to).refuse_if_none_saved(f"rank {self.round_to}")
            return self._by_energy(kernel, ranks or range(full, full + 1), seed)
        rank = self.choose_unseen(full, cost_of)
        if not self.always:
            cost_of(rank).refuse_if_none_saved(f"rank {rank}")
        return rank, self._cp(kernel, rank, seed)

    def _by_energy(self, kernel: Array, ranks: range, seed: int) -> tuple[int, CP]:
        """Bisect for the smallest rank that keeps the energy; no singular values tell it beforehand."""
        low, high, best = 0, len(ranks) - 1, self._cp(kernel, ranks[-1], seed)
        if (kept := _energy(kernel, best)) < (self.energy or 0.0):
            raise RefusalError(
                f"rank {ranks[-1]}, the largest that saves anything, keeps {kept:.1%} of the energy, "
                f"less than {self.energy:.1%}"
            )
        while low < high:
            middle = (low + high) // 2
            found = self._cp(kernel, ranks[middle], seed)
            if _energy(kernel, found) < (self.energy or 0.0):
                low = middle + 1
            else:
                high, best = middle, found
        return ranks[high], best

    def _cp(self, kernel: Array, rank: int, seed: int) -> CP:
        return cp(kernel, rank, seed=seed, iterations=self.iterations)


def _energy(kernel: Array, found: CP) -> float:
    return 1 - relative_error(kernel, found.dense()) ** 2


def _cost(kernel: Array, rank: int, skipped: int) -> Cost:
    """Of a chain; the first layer runs at all positions, `skipped` times as many as the output has."""
    out, channels, *sides = kernel.shape
    return Cost(
        dense=Products(((out, channels, *sides),)),
        parameters=Products(((channels,), tuple(sides), (out,)), rank),
        multiply_adds=Products(((channels, skipped), tuple(sides), (out,)), rank),
    )


def _links(kernel: Array, found: CP) -> tuple[Link, ...]:
    out, channels, *sides = kernel.shape
    rank, pointwise = found.first.shape[0], (1,) * len(sides)
    return (
        Link("first", found.first.reshape(rank, channels, *pointwise), along(tuple(sides))),
        Link("depthwise", _filters(found), along(tuple(sides), *range(len(sides)), group=rank)),
        Link("last", found.last.reshape(out, rank, *pointwise), along(tuple(sides))),
    )


def _filters(found: CP) -> Float64Array:
    """One filter for each rank, [r, 1, *k]: the product of its columns."""
    filters = np.ones((1, found.first.shape[0]))
    for factor in found.spatial:
        filters = (filters[:, None, :] * factor).reshape(-1, filters.shape[-1])
    sides = [factor.shape[0] for factor in found.spatial]
    return np.ascontiguousarray(filters.T).reshape(-1, 1, *sides)
