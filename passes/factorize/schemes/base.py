"""What a scheme of factorization is, and what all chains of layers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from onnxpress.passes.factorize.chain import Link
from onnxpress.passes.factorize.rank import Cost
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.factorize.schemes.ranks import Ranks, balanced, rounded_up
from onnxpress.passes.factorize.schemes.stages import Form, levelled
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.lowrank import rank_by_energy, svd
from onnxpress.passes.kernels.multilinear import dense, fit
from onnxpress.passes.kernels.tensor import DegenerateError
from onnxpress.passes.kernels.vbmf import vbmf_of
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site

__all__ = ["ChainFactors", "ChainScheme", "Factors", "Ranks", "Scheme", "as_stored", "site_rows"]

_SWEEPS = 12
"""Of alternating least squares under a metric, from factors that are nearest to the weights."""

_RESTS = 3e-3
"""Relative gain of the error below which they end."""


class Factors(Protocol):
    """The numbers of a chain."""

    def dense(self) -> Float64Array:
        """The weight they stand for, as rows [groups·out, in·∏ sides] (`Layer.to_rows`)."""
        ...

    def links(self) -> tuple[Link, ...]:
        """The layers that compute it, for `chain.replace_by_chain`."""
        ...

    def stored(self, dtype: np.dtype[Any]) -> Factors:
        """The same as a model of that type stores them.

        Raises:
            RefusalError: the type cannot hold them.
        """
        ...


class Scheme(Protocol):
    """A way to write a layer as a chain of smaller ones.

    Every method but `refuse` is for sites that it does not refuse.
    """

    @property
    def name(self) -> str:
        """In reports and options."""
        ...

    @property
    def counts_channels(self) -> bool:
        """Whether its ranks are numbers of channels, which runtimes like to be multiples of 8 or so."""
        ...

    def refuse(self, site: Site) -> None:
        """Refuse a site that has no such chain.

        Raises:
            RefusalError: the reason.
        """
        ...

    def ranks(self, site: Site) -> Ranks:
        """The full ranks, at which the chain computes what the layer does."""
        ...

    def top(self, site: Site) -> int:
        """The number for which `at` gives the full ranks."""
        ...

    def at(self, site: Site, rank: int) -> Ranks:
        """The ranks for one number from 1 to `top`, in a proportion that suits the weights; they ascend with it."""
        ...

    def even(self, site: Site, rank: int) -> Ranks:
        """The same number for every rank, or the full one where that is smaller."""
        ...

    def ladder(self, site: Site, multiple: int) -> tuple[Ranks, ...]:
        """Ranks to choose from, ascending: multiples of `multiple` where ranks are channels, up to the full ones."""
        ...

    def cost(self, site: Site, ranks: Ranks) -> Cost:
        """What layer and chain take."""
        ...

    def by_energy(self, site: Site, target: Array, metric: Array | None, energy: float) -> Ranks | None:
        """The least ranks of which singular values say that they keep that part of the energy; None: they do not say.

        With a metric of which the scheme can make use, the energy is that of the layer's outputs.
        """
        ...

    def by_vbmf(self, site: Site, target: Array) -> Ranks:
        """The ranks that variational Bayes finds in the weights (Nakajima et al., 2013).

        Raises:
            RefusalError: it finds none.
        """
        ...

    def fit(
        self,
        site: Site,
        target: Array,
        metric: Array | None,
        ranks: Ranks,
        seed: int,
        start: Factors | None = None,
    ) -> Factors:
        """Factors W(θ) that make tr((W(θ) − T)·H·(W(θ) − T)ᵀ) least, or nearly so.

        Args:
            site: gives the geometry.
            target: T, [groups·out, in·∏ sides].
            metric: H, [groups, k, k], positive definite; None for the identity.
            ranks: as `at` gives them.
            seed: of what is random.
            start: factors of the same ranks for a like target and metric, where there are some.

        Raises:
            RefusalError: they do not converge.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ChainFactors:
    """Kernels of the stages of a form.

    Attributes:
        form: the chain.
        kernels: of each stage, those of all groups of the layer one below the other: [groups·writes, ...].
    """

    form: Form
    kernels: tuple[Array, ...]

    def parts(self) -> list[tuple[Array, ...]]:
        """Kernels of the stages of each group."""
        return list(zip(*(np.split(kernel, self.form.layer.groups) for kernel in self.kernels), strict=True))

    def dense(self) -> Float64Array:
        """As `Factors.dense`."""
        layer, form = self.form.layer, self.form
        expression = form.expression()
        found = [dense(expression, form.factors(each)) for each in self.parts()]
        return np.concatenate([each.reshape(layer.out, layer.width) for each in found])

    def links(self) -> tuple[Link, ...]:
        """As `Factors.links`."""
        return self.form.links(self.kernels)

    def stored(self, dtype: np.dtype[Any]) -> ChainFactors:
        """As `Factors.stored`."""
        return ChainFactors(self.form, tuple(as_stored(kernel, dtype) for kernel in self.kernels))


def as_stored(kernel: Array, dtype: np.dtype[Any]) -> Array:
    """A kernel rounded to a type.

    Raises:
        RefusalError: the type cannot hold it.
    """
    with np.errstate(over="ignore"):
        narrow: Array = np.ascontiguousarray(kernel.astype(dtype))
    if not np.isfinite(narrow).all():
        raise RefusalError(f"its factors do not fit into {dtype}")
    return narrow


class ChainScheme(ABC):
    """A scheme whose kernel is an einsum of the kernels of its stages."""

    name: ClassVar[str]
    counts_channels: ClassVar[bool] = True
    closed: ClassVar[bool] = False
    """Whether what is nearest is the best under a metric, too."""

    @abstractmethod
    def refuse(self, site: Site) -> None:
        """As `Scheme.refuse`."""

    @abstractmethod
    def ranks(self, site: Site) -> Ranks:
        """As `Scheme.ranks`."""

    @abstractmethod
    def form(self, layer: Layer, ranks: Ranks) -> Form:
        """The chain at some ranks."""

    @abstractmethod
    def nearest(self, kernel: Float64Array, metric: Array | None, ranks: Ranks, seed: int) -> Sequence[Array]:
        """Kernels of the stages of one group, perhaps in other shapes; without a metric the best, or nearly so."""

    @abstractmethod
    def unfolded(self, kernel: Float64Array) -> tuple[Float64Array, ...]:
        """The matrices whose ranks its ranks are, for a kernel of one group; a single rank is that of all of them."""

    def top(self, site: Site) -> int:
        """As `Scheme.top`."""
        return max(self.ranks(site))

    def at(self, site: Site, rank: int) -> Ranks:
        """As `Scheme.at`: the other ranks keep as much energy as the widest does."""
        full = self.ranks(site)
        if len(full) == 1 or rank >= max(full):
            return tuple(min(rank, each) for each in full)
        return balanced(self._spectra(site, site_rows(site)), rank)

    def even(self, site: Site, rank: int) -> Ranks:
        """As `Scheme.even`."""
        return tuple(min(rank, each) for each in self.ranks(site))

    def ladder(self, site: Site, multiple: int) -> tuple[Ranks, ...]:
        """As `Scheme.ladder`."""
        full = self.ranks(site)
        top = max(full)
        spectra = self._spectra(site, site_rows(site)) if len(full) > 1 else ()
        numbers = [*range(multiple, top, multiple)]
        found = [balanced(spectra, each) if spectra else (each,) for each in numbers]
        rounded = [rounded_up(each, full, multiple) for each in found]
        return tuple(dict.fromkeys([*rounded, full]))

    def cost(self, site: Site, ranks: Ranks) -> Cost:
        """As `Scheme.cost`."""
        return self.form(Layer.of(site), ranks).cost()

    def by_energy(self, site: Site, target: Array, metric: Array | None, energy: float) -> Ranks | None:
        """As `Scheme.by_energy`: what is lost is at most what all ranks lose together (De Lathauwer et al., 2000)."""
        spectra = self._spectra(site, target)
        each = 1 - (1 - energy) / len(spectra)
        return tuple(rank_by_energy(values, each) for values in spectra)

    def by_vbmf(self, site: Site, target: Array) -> Ranks:
        """As `Scheme.by_vbmf`; of several groups the largest counts."""
        kernels = Layer.of(site).kernels(np.asarray(target, np.float64))
        found = [[vbmf_of(matrix).rank for matrix in self.unfolded(kernel)] for kernel in kernels]
        ranks = tuple(map(max, zip(*found, strict=True)))
        if not min(ranks):
            raise RefusalError("variational Bayes finds nothing but noise in its weights")
        full = self.ranks(site)
        return ranks if len(ranks) == len(full) else (min(max(ranks), *full),)

    def fit(
        self,
        site: Site,
        target: Array,
        metric: Array | None,
        ranks: Ranks,
        seed: int,
        start: Factors | None = None,
    ) -> ChainFactors:
        """As `Scheme.fit`: from the nearest factors by alternating least squares."""
        layer = Layer.of(site)
        form, found = self.form(layer, ranks), []
        given = start.parts() if isinstance(start, ChainFactors) and not self.closed else None
        for group, kernel in enumerate(layer.kernels(np.asarray(target, np.float64))):
            seen = None if metric is None else metric[group]
            try:
                near = given[group] if given else self.nearest(kernel, seen, ranks, seed)
                shaped = [each.reshape(stage.shape(layer)) for each, stage in zip(near, form.stages, strict=True)]
                found.append(levelled(shaped if seen is None or self.closed else _improved(form, shaped, kernel, seen)))
            except DegenerateError as error:
                raise RefusalError(str(error)) from error
        return ChainFactors(form, tuple(np.concatenate(each) for each in zip(*found, strict=True)))

    def _spectra(self, site: Site, target: Array) -> tuple[Float64Array, ...]:
        """Singular values behind each rank, of all groups together."""
        kernels = Layer.of(site).kernels(np.asarray(target, np.float64))
        every = [[svd(matrix).values for matrix in self.unfolded(kernel)] for kernel in kernels]
        return tuple(np.linalg.norm(values, axis=0) for values in zip(*every, strict=True))


def site_rows(site: Site) -> Array:
    """The weight of a site as rows."""
    return Layer.of(site).to_rows(site.array())


def _improved(form: Form, kernels: Sequence[Array], kernel: Float64Array, metric: Array) -> list[Float64Array]:
    """Kernels of the stages by alternating least squares."""
    target = kernel.reshape(len(kernel), -1)
    found, _ = fit(form.expression(), form.factors(kernels), target, metric, sweeps=_SWEEPS, tolerance=_RESTS)
    return form.kernels(found)
