"""Which weights of a layer go, by what the layer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array, Mask
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.obs import Axes, Sparse, alternate, surgeon
from onnxpress.passes.kernels.saliency import magnitude, obd, wanda
from onnxpress.passes.prune.zeros.patterns import Blocks, Form, NofM, Pattern, Unstructured

Saliency = Literal["magnitude", "wanda", "obd", "obs", "alps"]
SALIENCIES: tuple[Saliency, ...] = ("magnitude", "wanda", "obd", "obs", "alps")

_FLOOR = 1e-3
"""Damping, as a part of the mean diagonal, that no choice goes below."""

_STRETCH = 128
"""Columns for which `obs` chooses the mask together, about."""

_SAMPLED = 48
"""Outputs of a layer that tell for all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a layer should compute, of what it reads.

    Attributes:
        weight: as it is, [out, k].
        moment: Σ x·xᵀ, [groups, k, k]; of x less its mean where an intercept takes that in.
        gradient: Σ (y − W·x)·xᵀ, [groups, rows of a group, k]; what the weight as it is leaves to be desired.
        axes: of the moment.
    """

    weight: Float64Array
    moment: Float64Array
    gradient: Float64Array
    axes: Axes

    @classmethod
    def of(cls, normal: Normal, weight: Array, *, biased: bool, fitted: bool = True) -> Problem:
        """The problem that normal equations pose.

        Args:
            normal: the equations.
            weight: as it is, [out, k].
            biased: whether an intercept is fitted, too.
            fitted: whether the outputs of the equations count, rather than those of the weight.

        Raises:
            ValueError: values that are not finite.
        """
        moment, cross = normal.moment, normal.cross
        if biased:
            sums = normal.input_sum
            moment = moment - sums[:, :, np.newaxis] * sums[:, np.newaxis] / normal.count
            cross = cross - normal.output_sum[:, :, np.newaxis] * sums[:, np.newaxis] / normal.count
        wide = weight.astype(np.float64)
        gradient = cross - wide.reshape(cross.shape) @ moment if fitted else np.zeros(cross.shape)
        return cls(wide, moment, gradient, Axes.of(moment, damping=_FLOOR))

    def outputs(self, chosen: Array) -> Problem:
        """The problem of some outputs, whose numbers count within a group."""
        parts = self.weight.reshape(self.gradient.shape)[:, chosen]
        return Problem(parts.reshape(-1, parts.shape[2]), self.moment, self.gradient[:, chosen], self.axes)

    def reordered(self, order: Array) -> Problem:
        """The problem with the inputs of a layer without groups in another order."""
        axes = Axes(self.axes.scale[:, :, order], self.axes.values, self.axes.basis[:, order])
        moment = self.moment[:, order[:, np.newaxis], order]
        return Problem(self.weight[:, order], moment, self.gradient[:, :, order], axes)

    def dense(self, damping: float) -> Float64Array:
        """The best weight without zeros, drawn towards the one that is there; [out, k].

        Minimises Σ ‖y − V·x‖² + damping·Σ_j M_jj·‖v_j − w_j‖² over V: inputs are expected to vary otherwise than in the
        samples by so much of their power.
        """
        if not self.gradient.any():
            return self.weight
        return self.weight + self.axes.damped(damping).solve(self.gradient).reshape(self.weight.shape)

    def damped(self, damping: float) -> Float64Array:
        """M + damping·diag(M), [groups, k, k]."""
        moment = self.moment.copy()
        np.einsum("gkk->gk", moment)[:] *= 1 + damping
        return moment


@dataclass(frozen=True, slots=True)
class Criterion:
    """How the weights that stay are chosen in one layer.

    Attributes:
        saliency: what weights are judged by.
        pattern: which may go together.
        form: of the layer's matrix.
    """

    saliency: Saliency
    pattern: Pattern
    form: Form

    @property
    def learns(self) -> bool:
        """Whether weights and mask are found together, rather than the mask from the weights as they are."""
        return self.saliency in ("obs", "alps")

    def select(self, scores: Array, sparsity: float) -> Mask:
        """Which weights stay, by scores that are not negative."""
        if isinstance(self.pattern, NofM):
            return self.pattern.mask(scores)
        return self.pattern.mask(scores, sparsity, self.form)

    def scores(self, weight: Array, moment: Array) -> Float64Array:
        """What each weight is worth by itself, [out, k]."""
        if self.saliency == "magnitude":
            return magnitude(weight)
        return wanda(weight, moment) if self.saliency == "wanda" else obd(weight, moment)

    def worth(self, problem: Problem, *, damping: float) -> Float64Array:
        """What each weight of a layer is worth by itself, once the dense weight is fitted where the criterion learns.

        Args:
            problem: of the layer.
            damping: of the moment, as a part of its diagonal.
        """
        if self.learns:
            return obd(problem.dense(damping), problem.moment)
        return self.scores(problem.weight, problem.moment)

    def prune(self, problem: Problem, sparsity: float, *, damping: float, hurry: bool = False) -> Sparse:
        """Choose what stays; where the criterion learns, with the weights that make up for what goes.

        Args:
            problem: of the layer.
            sparsity: fraction that goes.
            damping: of the moment, as a part of its diagonal.
            hurry: be quick, and a little worse.

        Raises:
            ValueError: values that are not finite, or a moment with negative directions.
        """
        if self.saliency == "alps":
            axes, pace = problem.axes.damped(damping), 1 if hurry else 3
            return alternate(problem.dense(damping), axes, self.select, sparsity=sparsity, pace=pace)
        if self.saliency == "obs":
            dense, moment, width = problem.dense(damping), problem.damped(damping), self._width(problem.weight)
            return surgeon(dense, moment, self.select, sparsity=sparsity, width=width, damping=_FLOOR)
        mask = self.select(self.scores(problem.weight, problem.moment), sparsity)
        return Sparse(np.where(mask, problem.weight, 0), mask)

    def sample(self, rows: int) -> Array:
        """Some outputs of `rows`, evenly spread; all where they are pruned together.

        Args:
            rows: of a group.
        """
        if rows <= _SAMPLED or not isinstance(self.pattern, Unstructured | NofM):
            return np.arange(rows)
        return np.linspace(0, rows - 1, _SAMPLED).astype(np.int64)

    def _width(self, weight: Array) -> int:
        """Columns of a stretch: whole units."""
        if isinstance(self.pattern, Unstructured):
            return _STRETCH
        if isinstance(self.pattern, NofM | Blocks):
            unit = self.pattern.group if isinstance(self.pattern, NofM) else self.pattern.width
            return max(unit, _STRETCH // unit * unit)
        return max(1, int(weight.shape[1]))
