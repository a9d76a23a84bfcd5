"""What a weight may take in the file, and what error that causes: measured at some points, interpolated between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxpress.passes.encode.options import Option as Stored
from onnxpress.passes.encode.writer import shared_costs
from onnxpress.passes.kernels.allocation import Frontier, Option, hull
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.report import Curve
from onnxpress.passes.share.stored import distinct_plans, least, total
from onnxpress.rewriter.sites import Site

_BETWEEN = 4
"""Steps from one measured point to the next."""

_ROUNDS = 3
"""How often weights are chosen for, each time by what those chosen before share."""

_SLIGHT = 0.003
"""Of the budget: what all share need not be known better."""

_STRAY = 0.003
"""Of the budget: where weights took so much more or less than was planned, what is left is shared out again."""

_LEAST = 1e-12
"""Of the greatest noise: what counts as none."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to store a weight.

    Attributes:
        density: part of the weights that stay.
        width: bits of a code, about, of those; infinite where the weight stays as it is.
        nbytes: in the encoded file.
        noise: relative noise of the model's outputs, predicted.
        plans: ways to store it, about; of those that share the same with other weights the smallest.
    """

    density: float
    width: float
    nbytes: float
    noise: float
    plans: tuple[Stored, ...]


@dataclass(frozen=True, eq=False)
class Known:
    """What was measured of one weight.

    Attributes:
        site: the weight.
        before: density as it is.
        densities: parts that stay, ascending, [densities].
        widths: bits of codes, ascending, [widths].
        nbytes: in the file, [densities, widths].
        noise: of what the layer gives, relative, [densities, widths]; of the weight itself where nothing is known of
            what it reads.
        plans: ways to store it, by densities and widths.
        harms: noise of the layer's outputs, ascending, and what relative noise of the model's goes with it, as a
            ratio; none where that cannot be measured.
        dense: bytes in the file as it is.
        huffman: whether it may have Huffman codes.
        damping: of the second moments with which it is pruned best.
    """

    site: Site
    before: float
    densities: Float64Array
    widths: Float64Array
    nbytes: Float64Array
    noise: Float64Array
    plans: Sequence[Sequence[tuple[Stored, ...]]]
    harms: tuple[tuple[float, float], ...]
    dense: int
    huffman: bool
    damping: float = 1.0

    def predicted(self, noise: Float64Array) -> Float64Array:
        """Noise of the model's outputs, for noise of the layer's."""
        if not self.harms:
            return noise
        known, ratios = np.log(np.array(self.harms)).T
        return np.asarray(noise * np.exp(np.interp(np.log(np.maximum(noise, 1e-300)), known, ratios)))

    @cached_property
    def offers(self) -> tuple[Offer, ...]:
        """From the largest to the smallest, each with more noise for a byte than the one before."""
        floor = _LEAST * max(float(self.noise.max()), 1e-30)
        densities, widths = _finer(np.log(self.densities)), _finer(self.widths)
        given, wanted = (np.log(self.densities), self.widths), (densities, widths)
        # a bit of a code is so many bytes and 6 dB, so noise is straight in its logarithm
        noise = self.predicted(np.exp(_between(np.log(np.maximum(self.noise, floor)), *given, *wanted)))
        wide = _between(np.maximum(self.nbytes, 1), given[0], self.widths, given[0], widths)
        nbytes = np.exp(_between(np.log(wide), given[0], widths, densities, widths))
        every = [Offer(1.0, math.inf, float(self.dense), 0.0, (Stored(None, self.dense),))] + [
            Offer(
                float(np.exp(density)),
                float(width),
                float(nbytes[row, column]),
                float(noise[row, column]),
                self.plans[round(row / _BETWEEN)][round(column / _BETWEEN)],
            )
            for row, density in enumerate(densities)
            for column, width in enumerate(widths)
        ]
        return tuple(every[k] for k in hull([Option(self.dense - each.nbytes, each.noise) for each in every]))

    @property
    def smallest(self) -> Offer:
        """The last offer."""
        return self.offers[-1]

    def curve(self) -> Curve:
        """As the report has it."""
        ratios = tuple(max(0.0, 1 - each.nbytes / self.dense) for each in self.offers)
        errors = tuple(decibels(each.noise) for each in self.offers)
        return Curve(self.site.name, "bytes", ratios, errors, "outputs" if self.harms else "layer")


def share_out(known: Sequence[Known], budget: float) -> list[Offer]:
    """An offer for each weight: the least noise in no more bytes; the smallest of all where even these are too much."""
    if sum(each.smallest.nbytes for each in known) > budget:
        return [each.smallest for each in known]
    options = [[Option(each.dense - offer.nbytes, offer.noise) for offer in each.offers] for each in known]
    chosen = Frontier(options).least(sum(each.dense for each in known) - budget)
    return [each.offers[number] for each, number in zip(known, chosen, strict=True)]


class Purse:
    """Bytes that are left for weights that are still to come."""

    def __init__(self, known: Sequence[Known], budget: float, opset: int) -> None:
        """Set up.

        Args:
            known: of all weights.
            budget: bytes of them together, with what they share.
            opset: of the model.
        """
        self._coming = {each.site.name: each for each in known}
        self._opset = opset
        self.budget = budget
        self._stored: list[tuple[Stored, ...]] = []
        self._planned: dict[str, Offer] = {}
        self._strayed = 0.0

    @property
    def least(self) -> int:
        """Bytes that all weights take at least."""
        offers = [each.smallest for each in self._coming.values()]
        return math.ceil(self._spent + sum(each.nbytes for each in offers) + self._shared(offers))

    @property
    def taken(self) -> int:
        """Bytes that the weights take for which there is nothing more to choose."""
        return total(self._stored, self._opset)

    @property
    def _spent(self) -> int:
        return sum(least(each).nbytes for each in self._stored)

    def offer(self, site: str) -> tuple[Offer, float]:
        """What is best for a weight, given what is left, and how many bytes it may take."""
        if not self._planned or self._strayed > _STRAY * self.budget:
            self._planned, self._strayed = self._chosen(), 0.0
        chosen = {name: self._planned[name] for name in self._coming}
        mine, others = chosen[site], [each for each in chosen.values() if each.width < math.inf]
        slack = max(0.0, self._left(list(chosen.values())) - sum(each.nbytes for each in chosen.values()))
        share = mine.nbytes / sum(each.nbytes for each in others) if mine.width < math.inf else 0.0
        return mine, mine.nbytes + slack * share

    def spend(self, site: str, plans: Sequence[Stored]) -> None:
        """A weight can be stored in some ways, and is as it will be."""
        del self._coming[site]
        self._stored.append(distinct_plans(plans))
        if site in self._planned:
            self._strayed += abs(least(plans).nbytes - self._planned[site].nbytes)

    def _chosen(self) -> dict[str, Offer]:
        """The best offers for all weights that are still to come."""
        known = list(self._coming.values())
        best = [each.offers[0] for each in known]
        if sum(each.nbytes for each in best) <= self._left(best):
            return dict(zip(self._coming, best, strict=True))
        offers = [each.smallest for each in known]
        for _ in range(_ROUNDS):  # what they share depends on what is chosen
            offers = share_out(known, self._left(offers))
        return dict(zip(self._coming, offers, strict=True))

    def _left(self, offers: Sequence[Offer]) -> float:
        return self.budget - self._spent - self._shared(offers)

    def _shared(self, offers: Sequence[Offer]) -> int:
        """Bytes of what is stored once, and of what weights take more to do with less of that."""
        plans = [*self._stored, *(each.plans for each in offers)]
        needs = frozenset[str]().union(*(least(each).needs for each in plans))
        most = sum(shared_costs(needs, self._opset).values())
        if most <= _SLIGHT * self.budget:
            return most
        return total(plans, self._opset) - sum(least(each).nbytes for each in plans)


def _finer(points: Float64Array) -> Float64Array:
    """Points and some between them."""
    steps = np.arange((len(points) - 1) * _BETWEEN + 1) / _BETWEEN
    return np.asarray(np.interp(steps, np.arange(len(points)), points))


def _between(
    values: Float64Array, rows: Float64Array, columns: Float64Array, new_rows: Float64Array, new_columns: Float64Array
) -> Float64Array:
    """Values [rows, columns] at new rows and columns, straight between those given."""
    wide = np.stack([np.interp(new_columns, columns, each) for each in values])
    return np.stack([np.interp(new_rows, rows, each) for each in wide.T]).T
