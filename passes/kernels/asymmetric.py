"""Weights whose outputs are right behind the activation that reads them, rather than before it.

With f the activation, u what it was given and z what it is given now, Σ ‖f(u) − f(z)‖² lets pass what f does not: how
far below zero a Relu's input lies. Steps make it less: t is z moved against the gradient, and the weight is fitted to t
instead of u, by least squares. (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
Detection", 2016, come to such t by a penalty that grows; the gradient needs fewer steps for the same error.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array

_ASLEEP = 0.5
"""Slope that stands in where f is flat but its output should be another: no gradient would ever wake it."""


class Activation(Protocol):
    """What reads the outputs of a layer; none of its slopes is steeper than 1."""

    def of(self, given: Array) -> Array:
        """What it makes of outputs [n, out]."""
        ...

    def wished(self, wanted: Array, given: Array) -> Array:
        """What it should rather be given than z to come nearer to f(u): t, [n, out].

        Args:
            wanted: u, [n, out].
            given: z, [n, out].
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Bent:
    """Relu, LeakyRelu, PRelu, and Clip: straight from `low` to `high`.

    Attributes:
        low: below it the slope is another.
        high: above it the slope is 0.
        slope: below `low`, from 0 to 1: one, or one for each output.
    """

    low: float = 0.0
    high: float = np.inf
    slope: float | Array = 0.0

    def of(self, given: Array) -> Array:
        """As `Activation.of`."""
        bent: Array = np.clip(given, self.low, self.high)
        if np.any(self.slope):
            bent += self.slope * np.minimum(given - self.low, 0)
        return bent

    def wished(self, wanted: Array, given: Array) -> Array:
        """As `Activation.wished`."""
        low = given <= self.low
        asleep = np.where(low, np.maximum(self.slope, _ASLEEP), _ASLEEP)
        outside = np.where(low & (wanted <= self.low), self.slope, asleep)
        slope = np.where(low | (given >= self.high), outside, 1.0).astype(given.dtype)
        wished: Array = given + slope * (self.of(wanted) - self.of(given))
        return wished


@dataclass(frozen=True, slots=True, eq=False)
class Largest:
    """Maxout: of every output the largest of several pieces.

    Attributes:
        pieces: as many equal parts of the outputs, one behind the other.
    """

    pieces: int

    def of(self, given: Array) -> Array:
        """As `Activation.of`."""
        largest: Array = self._parted(given).max(axis=1)
        return largest

    def wished(self, wanted: Array, given: Array) -> Array:
        """As `Activation.wished`."""
        aims, parts = self._parted(wanted), self._parted(given)
        aim = aims.max(axis=1, keepdims=True)
        woken = parts + np.float32(_ASLEEP) * (aim - parts)
        moved = np.minimum(np.where(aims == aim, woken, parts), aim)
        wished: Array = np.where(parts == parts.max(axis=1, keepdims=True), aim, moved)
        return wished.reshape(given.shape)

    def _parted(self, given: Array) -> Array:
        return given.reshape(len(given), self.pieces, -1)


class Correction:
    """What a layer's weight gains when its outputs should be others by d: Σ d·(x − m)ᵀ·H⁻¹, m the mean input."""

    def __init__(self, metric: Array, centre: Array | None) -> None:
        """Factorize the metric, once for all corrections.

        Args:
            metric: H, [groups, k, k].
            centre: m, [groups, k], for a layer with a bias, which takes the mean of d; None without.

        Raises:
            ValueError: the metric is not positive definite.
        """
        from scipy.linalg import cho_factor

        try:
            self._roots = [cho_factor(each, lower=True) for each in metric]
        except np.linalg.LinAlgError as error:
            raise ValueError("the metric is not positive definite") from error
        self._centre = centre

    def of(self, inputs: Iterable[Array], differences: Iterable[Array]) -> Float64Array:
        """What the weight gains, [groups·rows, k].

        Args:
            inputs: x, parts of [groups, n, k] each.
            differences: d, parts of [n, groups·rows] each.
        """
        from scipy.linalg import cho_solve

        cross: Float64Array | float = 0.0
        for rows, difference in zip(inputs, differences, strict=True):
            parts = difference.reshape(len(difference), len(rows), -1).transpose(1, 2, 0)
            found = (parts @ rows).astype(np.float64)
            if self._centre is not None:
                found -= parts.sum(axis=2, dtype=np.float64)[:, :, np.newaxis] * self._centre[:, np.newaxis]
            cross = cross + found
        solved = [cho_solve(root, each.T).T for root, each in zip(self._roots, np.asarray(cross), strict=True)]
        return np.concatenate(solved)
