"""One layer that is to be pruned, with samples to fit and others to judge by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np

from onnxpress.passes.equations import Pair
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.least_squares import choose_ridge, error, solve
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.obs import Sparse
from onnxpress.passes.prune.zeros.criteria import Criterion, Problem
from onnxpress.passes.selection import Layout
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_DAMPINGS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""What is chosen from: few samples want more of it."""


Arrange: TypeAlias = Callable[[Float64Array], Array | None]


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """Some outputs of a layer, pruned by the samples to fit and judged on the others.

    Attributes:
        weight: of these outputs, [some, k].
        shift: what is added to them, [some]; None where nothing is.
        noise: Σ of squared errors over Σ of squares, of these outputs.
    """

    weight: Array
    shift: Float64Array | None
    noise: float


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer and its equations.

    Attributes:
        criterion: chooses what goes.
        reconstruct: whether what stays is refitted, and the bias with it.
        weight: as it is, [out, k].
        pair: the equations.
        biased: whether a bias takes in what is constant.
    """

    criterion: Criterion
    reconstruct: bool
    weight: Array
    pair: Pair
    biased: bool

    @classmethod
    def of(cls, model: Model, site: Site, pair: Pair, criterion: Criterion, *, reconstruct: bool) -> Self:
        """The layer of a site."""
        biased = reconstruct and intercept_of(model, site) is not None
        return cls(criterion, reconstruct, Layout.of(site).to_rows(site.array()), pair, biased)

    @property
    def chosen(self) -> Array:
        """Outputs of each group by which the layer is judged, numbered within the group."""
        return self.criterion.sample(self.pair.fit.cross.shape[1])

    @property
    def rows(self) -> Array:
        """The same, numbered over all groups."""
        groups, rows, _ = self.pair.fit.cross.shape
        return np.asarray(np.add.outer(np.arange(groups) * rows, self.chosen)).reshape(-1)

    @property
    def share(self) -> float:
        """Their part of the squares of all outputs."""
        energy = self.pair.held_out.energy
        whole = float(energy.sum())
        return float(energy[:, self.chosen].sum()) / whole if whole else 0.0

    def damping(self, sparsity: float) -> float:
        """The damping with which the pruned layer does best on the samples that are held out."""
        if not self.criterion.learns:
            return _DAMPINGS[-1]
        best, least = _DAMPINGS[0], np.inf
        for damping in _DAMPINGS:
            noise = self.attempt(sparsity, damping).noise
            if noise >= least:
                break
            best, least = damping, noise
        return best

    def attempt(self, sparsity: float, damping: float) -> Attempt:
        """Prune some outputs by the samples to fit.

        Raises:
            ValueError: values that are not finite, or a moment with negative directions.
        """
        with threads_for(self.weight.shape[1]):
            return self._attempt(sparsity, damping)

    def _attempt(self, sparsity: float, damping: float) -> Attempt:
        problem, (fit, held_out) = self._some
        sparse = self.criterion.prune(problem, sparsity, damping=damping, hurry=True)
        if self.criterion.learns or not self.reconstruct:
            shift = _intercept(fit, sparse.weight) if self.biased else None
            return Attempt(sparse.weight, shift, error(held_out, sparse.weight, shift) ** 2)
        choice = choose_ridge(fit, held_out, sparse.weight, mask=sparse.mask, bias=self.biased)
        if not np.isfinite(choice.ridge):
            return Attempt(sparse.weight, None, choice.after**2)
        weight, shift = solve(fit, sparse.weight, ridge=choice.ridge, mask=sparse.mask, bias=self.biased)
        return Attempt(weight, shift, choice.after**2)

    def prune(self, sparsity: float, *, arrange: Arrange | None = None) -> Sparse:
        """Prune the layer by all samples.

        Args:
            sparsity: fraction that goes.
            arrange: of what each weight is worth, [out, k], the order of inputs in which the pattern is to hold, or
                None for the one they have. The result has them as they are.

        Raises:
            ValueError: values that are not finite, or a moment with negative directions.
        """
        with threads_for(self.weight.shape[1]):
            damping = self.damping(sparsity)
            problem = Problem.of(self.pair.total, self.weight, biased=self.biased, fitted=self.reconstruct)
            order = None if arrange is None else arrange(self.criterion.worth(problem, damping=damping))
            if order is None:
                return self.criterion.prune(problem, sparsity, damping=damping)
            sparse = self.criterion.prune(problem.reordered(order), sparsity, damping=damping)
            back = np.argsort(order)
            return Sparse(sparse.weight[:, back], sparse.mask[:, back])

    @cached_property
    def _some(self) -> tuple[Problem, tuple[Normal, Normal]]:
        """The problem of the outputs that tell for all, and their equations."""
        problem = Problem.of(self.pair.fit, self.weight, biased=self.biased, fitted=self.reconstruct)
        chosen = self.chosen
        return problem.outputs(chosen), (self.pair.fit.outputs(chosen), self.pair.held_out.outputs(chosen))


def _intercept(normal: Normal, weight: Array) -> Float64Array:
    """What is best added to the outputs, [out]."""
    parts = weight.reshape(normal.cross.shape)
    lost = normal.output_sum - np.einsum("grk,gk->gr", parts, normal.input_sum)
    return np.asarray(lost.reshape(-1) / normal.count)
