"""A weight as a block-diagonal one between two permutations: a grouped convolution or several small products.

Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation" (2014), cluster
input and output channels in equal groups that need each other most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.supports import solve_dense
from onnxpress.passes.kernels.whitened import check_metric

IntArray = NDArray[np.int64]

_PULL = 1e-10
"""Part of the mean diagonal by which weights are drawn to those of the target."""

_SETTLE = 10
"""Rounds of balanced k-means at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A block-diagonal weight.

    Attributes:
        outputs: channels of each group, ascending, [groups, out / groups].
        inputs: the same of the input, [groups, in / groups].
        weights: [groups, out / groups, (in / groups)·taps], columns in the order of the dense matrix.
        error: √(tr((W − T)·H·(W − T)ᵀ) / tr(T·H·Tᵀ)).
    """

    outputs: IntArray
    inputs: IntArray
    weights: Float64Array
    error: float

    def dense(self) -> Float64Array:
        """The matrix [out, in·taps] with zeros between groups."""
        taps = self.weights.shape[2] // self.inputs.shape[1]
        wide = np.zeros((self.outputs.size, self.inputs.size * taps))
        for outputs, inputs, weights in zip(self.outputs, self.inputs, self.weights, strict=True):
            wide[np.ix_(outputs, _columns(inputs, taps))] = weights
        return wide


def block_diagonal(target: Array, metric: Array | None, groups: int, *, taps: int = 1, rounds: int = 20) -> Blocks:
    """Share channels out among groups of equal size, and fit the weights within them exactly.

    Given the inputs of each group, what each group can explain of an output is known from the metric, and the outputs
    are shared out at once by a linear assignment; then the inputs by the energy of their weights, in turns, from a
    spectral start (Dhillon, 2001), as long as the error falls. Deterministic.

    Args:
        target: T, [out, in·taps], finite.
        metric: H, [in·taps, in·taps], symmetric, not negative; None for the identity.
        groups: a divisor of out and in.
        taps: of the kernel: columns in a row that belong to one input channel.
        rounds: of assignments at most.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or `groups` no divisor.
    """
    check_metric(target, metric)
    if taps < 1 or target.shape[1] % taps:
        raise ValueError(f"{target.shape[1]} columns are no channels of {taps} taps")
    out, channels = len(target), target.shape[1] // taps
    if groups < 1 or out % groups or channels % groups:
        raise ValueError(f"{groups} groups do not divide {out} outputs and {channels} inputs")
    problem = _Problem.of(target.astype(np.float64), metric, groups, taps)
    best: tuple[float, IntArray, IntArray] | None = None
    for inputs in (_owners(channels, groups), problem.spectral()):
        found = problem.settled(inputs, rounds)
        if best is None or found[0] > best[0] * (1 + 1e-12):
            best = found
    kept, outputs, inputs = best or (0.0, *(np.zeros(0, np.int64),) * 2)
    members = _members(outputs, groups), _members(inputs, groups)
    weights = np.stack([problem.weights(*each) for each in zip(*members, strict=True)])
    error = math.sqrt(max(0.0, 1 - kept / problem.whole)) if problem.whole else 0.0
    return Blocks(*members, weights, error)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What is to be shared out.

    Attributes:
        target: T, [out, k].
        metric: H, [k, k]; None for the identity.
        cross: T·H, [out, k].
        needs: energy of the outputs by each input's weights alone, [out, in].
        groups: how many.
        taps: columns of an input.
        whole: tr(T·H·Tᵀ).
    """

    target: Float64Array
    metric: Array | None
    cross: Float64Array
    needs: Float64Array
    groups: int
    taps: int
    whole: float

    @classmethod
    def of(cls, target: Float64Array, metric: Array | None, groups: int, taps: int) -> _Problem:
        """Sum up the energies."""
        out, width = target.shape
        parts = target.reshape(out, -1, taps)
        if metric is None:
            return cls(target, None, target, np.square(parts).sum(axis=2), groups, taps, float(np.vdot(target, target)))
        channels = width // taps
        own = np.einsum("itis->its", metric.reshape(channels, taps, channels, taps))
        needs = np.einsum("oit,its,ois->oi", parts, own, parts, optimize=True)
        cross = target @ metric
        return cls(target, metric, cross, np.maximum(needs, 0), groups, taps, float(np.vdot(cross, target)))

    def settled(self, inputs: IntArray, rounds: int) -> tuple[float, IntArray, IntArray]:
        """Share out in turns from the groups of the inputs; energy that is kept, groups of outputs and of inputs."""
        kept, outputs = self.shared(inputs)
        for _ in range(rounds):
            ours = np.stack([self.needs[outputs == group].sum(axis=0) for group in range(self.groups)], axis=1)
            trial = _assign(ours)
            after, moved = self.shared(trial)
            if not after > kept * (1 + 1e-12):
                break
            kept, outputs, inputs = after, moved, trial
        return kept, outputs, inputs

    def shared(self, inputs: IntArray) -> tuple[float, IntArray]:
        """The best groups of the outputs for those of the inputs, and the energy that is kept."""
        explained = np.stack([self.explained(each) for each in _members(inputs, self.groups)], axis=1)
        outputs = _assign(explained)
        return float(explained[np.arange(len(outputs)), outputs].sum()), outputs

    def explained(self, inputs: IntArray) -> Float64Array:
        """The energy of each output that some inputs can give, [out]."""
        columns = _columns(inputs, self.taps)
        cross = self.cross[:, columns]
        return np.asarray(np.einsum("ok,ok->o", self._solved(columns, cross, cross * 0), cross))

    def weights(self, outputs: IntArray, inputs: IntArray) -> Float64Array:
        """The best weights of some outputs on some inputs."""
        columns = _columns(inputs, self.taps)
        return self._solved(columns, self.cross[np.ix_(outputs, columns)], self.target[np.ix_(outputs, columns)])

    def _solved(self, columns: IntArray, cross: Float64Array, near: Float64Array) -> Float64Array:
        """W of W·H = cross on some columns, near to what is given where H leaves it free."""
        if self.metric is None:
            return cross
        own = self.metric[np.ix_(columns, columns)].astype(np.float64)
        mean = float(np.trace(own)) / len(own)
        return near + solve_dense(own, cross - near @ own, damping=_PULL * mean) if mean > 0 else near

    def spectral(self) -> IntArray:
        """Groups of the inputs by singular vectors of the scaled energies, and balanced k-means on them."""
        roots = [np.sqrt(np.maximum(self.needs.sum(axis=axis), 1e-300)) for axis in (1, 0)]
        scaled = self.needs / roots[0][:, None] / roots[1]
        count = min(self.groups, min(scaled.shape))
        axes = np.linalg.eigh(scaled.T @ scaled).eigenvectors[:, ::-1][:, :count]
        points = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-300)
        return _balanced_clusters(points, self.groups)


def _balanced_clusters(points: Float64Array, groups: int) -> IntArray:
    """Clusters of equal size, from centres that are far from each other."""
    centres = points[:1]
    for _ in range(groups - 1):
        far = np.abs(points @ centres.T).max(axis=1)
        centres = np.concatenate([centres, points[[int(np.argmin(far))]]])
    owners = np.full(len(points), -1)
    for _ in range(_SETTLE):
        after = _assign(points @ centres.T)
        if np.array_equal(after, owners):
            break
        owners = after
        centres = np.stack([points[owners == group].mean(axis=0) for group in range(groups)])
    return owners


def _assign(gains: Float64Array) -> IntArray:
    """The group of each item, equally many in each, with the largest Σ gain; gains are [items, groups]."""
    from scipy.optimize import linear_sum_assignment

    items, groups = gains.shape
    _, places = linear_sum_assignment(-np.repeat(gains, items // groups, axis=1))
    return np.asarray(places // (items // groups), np.int64)


def _owners(items: int, groups: int) -> IntArray:
    return np.arange(items) // (items // groups)


def _members(owners: IntArray, groups: int) -> IntArray:
    """The items of each group, ascending, [groups, items / groups]."""
    return np.argsort(owners, kind="stable").reshape(groups, -1)


def _columns(inputs: IntArray, taps: int) -> IntArray:
    return (inputs[:, None] * taps + np.arange(taps)).reshape(-1)
