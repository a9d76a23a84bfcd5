"""How long layers and their chains take, measured one layer at a time with the shapes that it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.blanks import blank
from onnxpress.passes.factorize.chain import replace_by_chain
from onnxpress.passes.factorize.schemes.base import Ranks, Scheme
from onnxpress.passes.factorize.schemes.cp import CPScheme
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.stopwatch import alone, timed
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use, find_sites

POINTS = 4
"""Ranks of each scheme that are timed; what lies between them follows from its multiply-adds."""

_SECONDS = 0.04
"""For each model that is timed."""

_LONGEST = 5e7
"""Rank times weights of a layer above which alternating least squares of a sum of so many terms take minutes."""

_LOW = 0.2
"""Quantile of the seconds of a model that is taken for what it takes on a quiet machine."""


def as_is(model: Model) -> Model:
    """What is timed of a model that stays in float."""
    return model


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """A scheme with the ranks that save something, ascending.

    Attributes:
        scheme: how the layer is written.
        ranks: of the factors.
        work: multiply-adds beside those of the layer, ascending or nearly so.
    """

    scheme: Scheme
    ranks: tuple[Ranks, ...]
    work: Float64Array

    @classmethod
    def of(cls, scheme: Scheme, site: Site) -> Ladder:
        """The ranks to choose from: multiples of 8, closer ones where the full rank is small.

        Raises:
            RefusalError: the scheme cannot write the layer, or saves nothing.
        """
        scheme.refuse(site)
        top = scheme.top(site)
        multiple = next((step for step in (8, 4, 2) if top >= 8 * step), 1)
        longest = _LONGEST / site.size if isinstance(scheme, CPScheme) else math.inf
        every = [(each, scheme.cost(site, each)) for each in scheme.ladder(site, multiple) if max(each) <= longest]
        saving = [(ranks, cost) for ranks, cost in every if cost.saves()]
        if not saving:
            raise RefusalError(f"no rank of '{scheme.name}' saves anything")
        work = [cost.multiply_adds.value / cost.dense.value for _, cost in saving]
        return cls(scheme, tuple(ranks for ranks, _ in saving), np.array(work))

    def only(self, kept: Sequence[int]) -> Ladder:
        """Some of its ranks, by number."""
        return Ladder(self.scheme, tuple(self.ranks[number] for number in kept), self.work[list(kept)])

    def points(self, count: int) -> list[int]:
        """The numbers of a few ranks, the last among them, evenly spread over the logarithm of the work."""
        wanted = np.geomspace(self.work[0], self.work[-1], count)
        return sorted({int(np.argmin(np.abs(self.work - each))) for each in wanted} | {len(self.ranks) - 1})


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """Seconds of one layer.

    Attributes:
        dense: as it is.
        chains: by scheme, at each rank of its ladder.
    """

    dense: float
    chains: Mapping[str, Float64Array]

    def __add__(self, other: Timings) -> Timings:
        """Of two layers that share a weight."""
        both = self.chains.keys() & other.chains.keys()
        return Timings(self.dense + other.dense, {name: self.chains[name] + other.chains[name] for name in both})


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """What was measured of one scheme: multiply-adds and seconds, both beside those of the layer."""

    work: Float64Array
    seconds: Float64Array

    def at(self, work: Float64Array) -> Float64Array:
        order = np.argsort(self.work, kind="stable")
        return np.asarray(np.interp(work, self.work[order], self.seconds[order]))


@dataclass(slots=True)
class Stopwatch:
    """Times layers and chains of them, of each geometry once.

    Attributes:
        bench: providers and threads; of several providers the one that gains least counts.
        domains: versions of operators, by domain, as the model has them.
        timed_as: makes what is timed of a model in float.
        measured: seconds of the layer and the curves of schemes, by geometry.
    """

    bench: Workbench
    domains: Mapping[str, int]
    timed_as: Callable[[Model], Model] = as_is
    measured: dict[tuple[object, ...], tuple[float, dict[str, _Curve]]] = field(default_factory=dict)

    def timings(self, site: Site, shapes: Sequence[tuple[int, ...]], ladders: Sequence[Ladder]) -> Timings:
        """The seconds of a layer, and of all its chains.

        Args:
            site: its weight.
            shapes: of what each use of it reads.
            ladders: the chains, of at least one scheme.

        Raises:
            RefusalError: nothing could be timed.
        """
        found = [self._of_use(site, use, shape, ladders) for use, shape in zip(site.uses, shapes, strict=True)]
        total = found[0]
        for each in found[1:]:
            total = total + each
        return total

    def _of_use(self, site: Site, use: Use, shape: tuple[int, ...], ladders: Sequence[Ladder]) -> Timings:
        biased = len(use.node.inputs) > 2
        key = (
            use.node.op,
            repr(sorted(use.node.attrs.items())),
            site.shape,
            str(site.weight.dtype),
            use.index,
            shape,
            biased,
        )
        if key not in self.measured:
            self.measured[key] = self._measure(site, use, shape, ladders)
        dense, curves = self.measured[key]
        known = [each for each in ladders if each.scheme.name in curves]
        return Timings(dense, {each.scheme.name: dense * curves[each.scheme.name].at(each.work) for each in known})

    def _measure(
        self, site: Site, use: Use, shape: tuple[int, ...], ladders: Sequence[Ladder]
    ) -> tuple[float, dict[str, _Curve]]:
        dense = alone(
            use, np.random.default_rng(0).standard_normal(site.shape).astype(site.weight.dtype), shape, self.domains
        )
        models, told = [dense], list[tuple[str, float]]()
        for ladder in ladders:
            for number in ladder.points(POINTS):
                models.append(_chained(dense, ladder.scheme, ladder.ranks[number]))
                told.append((ladder.scheme.name, float(ladder.work[number])))
        try:
            models = [self.timed_as(each) for each in models]
            times = [
                timed(models, shape, site.weight.dtype, each, self.bench, seconds=_SECONDS)
                for each in self.bench.providers
            ]
        except (ModelError, FeedError) as error:
            raise RefusalError(f"nothing could be timed: {error}") from error
        calm = [np.quantile(each, _LOW, axis=0) for each in times]
        slowest = np.max([each[1:] / each[0] for each in calm], axis=0)
        return max(float(each[0]) for each in calm), _curves(told, slowest)


def _chained(dense: Model, scheme: Scheme, ranks: Ranks) -> Model:
    copy = dense.clone()
    site = find_sites(copy)[0]
    replace_by_chain(copy, site, blank(scheme, site, ranks).links())
    sweep(copy)
    return copy


def _curves(told: Sequence[tuple[str, float]], seconds: Array) -> dict[str, _Curve]:
    names = dict.fromkeys(name for name, _ in told)
    found = {}
    for name in names:
        own = [number for number, (each, _) in enumerate(told) if each == name]
        found[name] = _Curve(np.array([told[number][1] for number in own]), seconds[own])
    return found
