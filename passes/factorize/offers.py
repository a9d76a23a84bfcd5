"""What layers could become, what each way gains and costs, and the choice of one for each layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onnxpress.passes.factorize.curves import Known
from onnxpress.passes.factorize.latency import Timings
from onnxpress.passes.factorize.schemes.base import Ranks, Scheme
from onnxpress.passes.kernels.allocation import Frontier, Option

_STEPS = 40
"""Bisections of the gain that a budget of noise allows."""

_PAYS = 0.03
"""Part of a layer's seconds that a chain must gain alone: less is lost in what surrounds it."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """One way to write one layer.

    Attributes:
        site: its name.
        scheme: of the chain.
        ranks: of its factors.
        noise: relative, of the model's outputs, as predicted from this layer alone.
        gain: seconds, or bytes where size is the goal, that it saves.
        before: what the layer takes, in the same unit.
    """

    site: str
    scheme: Scheme
    ranks: Ranks
    noise: float
    gain: float
    before: float


Choice = Mapping[str, Offer]
"""By name of the site; layers that are not named stay."""


def by_seconds(known: Known, timings: Timings) -> list[Offer]:
    """The chains of a layer that are faster alone."""
    found = []
    for ladder in known.ladders:
        name = ladder.scheme.name
        if name not in timings.chains:
            continue
        for ranks, noise, seconds in zip(ladder.ranks, known.noise[name], timings.chains[name], strict=True):
            gain = timings.dense - float(seconds)
            if gain > _PAYS * timings.dense:
                noise = known.harm * float(noise)
                found.append(Offer(known.site.name, ladder.scheme, ranks, noise, gain, timings.dense))
    return found


def by_bytes(known: Known) -> list[Offer]:
    """The chains of a layer that are smaller."""
    found = []
    for ladder in known.ladders:
        for ranks, noise in zip(ladder.ranks, known.noise[ladder.scheme.name], strict=True):
            cost = ladder.scheme.cost(known.site, ranks)
            left = known.site.nbytes * cost.parameters.value / cost.dense.value
            noise = known.harm * float(noise)
            gain = known.site.nbytes - left
            found.append(Offer(known.site.name, ladder.scheme, ranks, noise, gain, float(known.site.nbytes)))
    return found


class Market:
    """The offers of all layers. Noises add up, and so do gains."""

    def __init__(self, offers: Mapping[str, Sequence[Offer]]) -> None:
        """Take in offers that are worth something.

        Args:
            offers: by name of the site.
        """
        self.offers = {name: [each for each in some if math.isfinite(each.noise)] for name, some in offers.items()}
        self.offers = {name: some for name, some in self.offers.items() if some}
        stay = Option(0.0, 0.0)
        options = [[stay, *(Option(each.gain, each.noise) for each in some)] for some in self.offers.values()]
        self._frontier = Frontier(options)
        self.most = math.fsum(max(option.amount for option in each) for each in options)

    def without(self, refused: Collection[tuple[str, str]]) -> Market:
        """The same market without some schemes for some sites.

        Args:
            refused: names of site and scheme.
        """
        left = {
            name: [each for each in some if (name, each.scheme.name) not in refused]
            for name, some in self.offers.items()
        }
        return Market(left)

    def gaining(self, gain: float) -> Choice:
        """The offers that gain so much at the least noise; where they cannot, all that gain most."""
        return self._named(self._frontier.least(min(gain, self.most * (1 - 1e-9)))) if self.offers else {}

    def within(self, noise: float) -> Choice:
        """The offers that gain most with at most so much noise."""
        low, high, best = 0.0, self.most, dict[str, Offer]()
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = dict(self.gaining(middle))
            if noise_of(found) <= noise:
                low, best = middle, found
            else:
                high = middle
        return best

    def _named(self, numbers: Sequence[int]) -> Choice:
        chosen = zip(self.offers.items(), numbers, strict=True)
        return {name: some[number - 1] for (name, some), number in chosen if number}


def noise_of(choice: Choice) -> float:
    """Relative noise of the outputs, as predicted."""
    return math.fsum(each.noise for each in choice.values())


def gain_of(choice: Choice) -> float:
    """What a choice gains, as predicted."""
    return math.fsum(each.gain for each in choice.values())
