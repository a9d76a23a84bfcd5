"""In which order units may go, and what each step costs the outputs of the layers that read them.

A layer computes Y = W·X. Without the columns S its output misses W_S·X_S: left at that, the squared error is
tr(W_S·M_SS·W_Sᵀ) with M = Σ x·xᵀ. Where the other columns make up for it by least squares, it is tr(W_S·(P_SS)⁻¹·W_Sᵀ)
with P = M⁻¹ (Hassibi and Stork, 1993, "Optimal Brain Surgeon", on whole blocks of columns). What is left then has
W − W_S·(P_SS)⁻¹·P_S: and P − P_:S·(P_SS)⁻¹·P_S:, so that the next unit can be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array

Numbers = NDArray[np.int64]

_ROUNDS = 24
"""The remaining units go in so many rounds, each with products of whole matrices."""

_PIECE = 256
"""Rows of a matrix that are mirrored at once."""

_CANDIDATES = 4
"""In a round the units that go are sought among so many times as many."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that reads the units.

    Attributes:
        weight: [out, k].
        moment: of what it reads, [k, k]: the mean of x·xᵀ, or the covariance where a bias takes up the means.
        columns: of the weight, that belong to each unit, [units, per unit].
    """

    weight: Array
    moment: Array
    columns: Numbers

    @property
    def energy(self) -> float:
        """Mean of ‖W·x‖²."""
        wide = np.asarray(self.weight, np.float64)
        return float(np.einsum("ij,ij->", wide @ np.asarray(self.moment, np.float64), wide))


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """Units in the order in which they go.

    Attributes:
        order: numbers of the units, [n].
        errors: of each reader once the first 0 … n units are gone, relative to its energy, [readers, n + 1].
    """

    order: Numbers
    errors: Float64Array


def eliminate(
    readers: Sequence[Reader], *, most: int, damping: float = 0.01, order: Numbers | None = None
) -> Elimination:
    """Let units go one after another, each time the one whose loss costs the readers least after compensation.

    Args:
        readers: of the same units; the relative errors of all count alike.
        most: units that go.
        damping: added to the diagonal of each moment, as a part of its mean.
        order: in which units go; None to seek it.

    Raises:
        ValueError: no readers, moments that are no numbers, or more units than there are.
        LinAlgError: moments without an inverse; a ValueError, too.
    """
    units = _check(readers, most)
    states = [_State.of(reader, damping) for reader in readers]
    alive = np.arange(units)
    gone: list[int] = []
    steps: list[Float64Array] = []
    while len(gone) < most:
        count = min(most - len(gone), max(1, len(alive) // _ROUNDS))
        if order is None:
            scores = np.sum([state.scores() for state in states], axis=0)
            candidates = np.sort(np.argsort(scores, kind="stable")[: _CANDIDATES * count])
            chosen, costs = _pick([state.part(candidates) for state in states], count)
            chosen = candidates[chosen]
        else:
            chosen = np.array([np.flatnonzero(alive == unit)[0] for unit in order[len(gone) : len(gone) + count]])
            _, costs = _pick([state.part(chosen) for state in states], count, in_order=True)
        gone += alive[chosen].tolist()
        steps += costs
        alive = np.delete(alive, chosen)
        states = [state.without(chosen) for state in states]
    return Elimination(np.array(gone, np.int64), _summed(steps, len(readers)))


def drop(readers: Sequence[Reader], *, most: int, order: Numbers | None = None) -> Elimination:
    """Let units go one after another, each time such that least is missing in the sums of the readers.

    Nothing makes up for what is missing (Luo et al., 2017, "ThiNet").

    Args:
        readers: of the same units; the relative errors of all count alike.
        most: units that go.
        order: in which units go; None to seek it.

    Raises:
        ValueError: no readers, moments that are no numbers, or more units than there are.
    """
    units = _check(readers, most)
    shares = np.stack([_shares(reader) for reader in readers])
    error, errors = np.zeros(len(readers)), [np.zeros(len(readers))]
    extra = shares[:, np.arange(units), np.arange(units)].copy()  # what each unit would add to the error
    left, gone = np.ones(units, np.bool_), []
    for step in range(most):
        total = np.where(left, extra.sum(axis=0), np.inf)
        unit = int(total.argmin()) if order is None else int(order[step])
        error = error + extra[:, unit]
        extra += 2 * shares[:, unit]
        left[unit] = False
        gone.append(unit)
        errors.append(np.maximum(error, 0.0))
    return Elimination(np.array(gone, np.int64), np.stack(errors, axis=1))


def compensated(reader: Reader, kept: Numbers, *, damping: float = 0.01) -> Float64Array:
    """The weight that does best with the units that stay: H = M + λ·1, W' = W·H_:K·(H_KK)⁻¹, zero elsewhere.

    Args:
        reader: with the whole weight.
        kept: numbers of the units that stay.
        damping: added to the diagonal of the moment, as a part of its mean.

    Returns:
        float64 [out, k].

    Raises:
        LinAlgError: the moment has no inverse; a ValueError, too.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    wide = np.asarray(reader.weight, np.float64)
    moment = _damped(reader.moment, damping)
    stay = np.ones(wide.shape[1], np.bool_)
    stay[reader.columns.ravel()] = False
    stay[reader.columns[kept].ravel()] = True
    inside = np.flatnonzero(stay)
    made = np.zeros_like(wide)
    if len(inside):
        try:
            factor = cho_factor(moment[np.ix_(inside, inside)], overwrite_a=True, check_finite=False)
        except LinAlgError as error:
            raise np.linalg.LinAlgError("the second moments have no inverse; give more samples") from error
        made[:, inside] = cho_solve(factor, (wide @ moment[:, inside]).T, check_finite=False).T
    return made


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A reader while units go: what is left of it, unit by unit.

    Attributes:
        weight: [out, units, per unit], made up so far, over the root of its energy, and columns of no unit behind.
        inverse: [k, k].
        units: that are left.
        per_unit: columns of each.
    """

    weight: Float64Array
    inverse: Float64Array
    units: int
    per_unit: int

    @classmethod
    def of(cls, reader: Reader, damping: float) -> _State:
        units, per_unit = reader.columns.shape
        rest = np.setdiff1d(np.arange(reader.weight.shape[1]), reader.columns)
        order = np.concatenate([reader.columns.ravel(), rest])
        moment = _damped(reader.moment[np.ix_(order, order)], damping)
        energy = reader.energy
        weight = np.asarray(reader.weight, np.float64)[:, order]
        return cls(weight / np.sqrt(energy) if energy > 0 else 0 * weight, _inverse(moment), units, per_unit)

    def scores(self) -> Float64Array:
        """What the loss of each unit alone costs."""
        blocks = self._columns(np.arange(self.units))
        inner = self.inverse[blocks[:, :, np.newaxis], blocks[:, np.newaxis]]  # [units, per unit, per unit]
        weight = self.weight[:, : self.units * self.per_unit]
        if self.per_unit == 1:
            return np.asarray(np.einsum("ij,ij->j", weight, weight) / inner[:, 0, 0], np.float64)
        parts = np.ascontiguousarray(weight.reshape(len(weight), self.units, self.per_unit).transpose(1, 0, 2))
        products = parts.transpose(0, 2, 1) @ parts
        return np.asarray(np.einsum("uij,uji->u", np.linalg.inv(inner), products), np.float64)

    def part(self, units: Numbers) -> _State:
        """What concerns some units only: enough to let one after another of them go."""
        columns = self._columns(units).ravel()
        return _State(self.weight[:, columns], self.inverse[np.ix_(columns, columns)], len(units), self.per_unit)

    def without(self, units: Numbers) -> _State:
        """The rest made up for some units that go."""
        columns = self._columns(units).ravel()
        stay = np.delete(np.arange(len(self.inverse)), columns)
        cross = self.inverse[np.ix_(stay, columns)]
        gain = np.linalg.solve(self.inverse[np.ix_(columns, columns)], cross.T)  # (P_SS)⁻¹·P_SK
        weight = self.weight[:, stay] - self.weight[:, columns] @ gain
        inverse = self.inverse[np.ix_(stay, stay)]
        inverse -= cross @ gain
        return _State(weight, inverse, self.units - len(units), self.per_unit)

    def _columns(self, units: Numbers) -> Numbers:
        return units[:, np.newaxis] * self.per_unit + np.arange(self.per_unit)


def _pick(states: Sequence[_State], count: int, *, in_order: bool = False) -> tuple[Numbers, list[Float64Array]]:
    """Let `count` units of small states go, the cheapest first; gives them with the cost to each state."""
    alive = np.arange(states[0].units)
    chosen: list[int] = []
    costs: list[Float64Array] = []
    for _ in range(count):
        scores = np.stack([state.scores() for state in states])
        at = 0 if in_order else int(scores.sum(axis=0).argmin())
        chosen.append(int(alive[at]))
        costs.append(np.maximum(scores[:, at], 0.0))
        alive = np.delete(alive, at)
        states = [state.without(np.array([at])) for state in states]
    return np.array(chosen, np.int64), costs


def _shares(reader: Reader) -> Float64Array:
    """What each pair of units adds to the energy of a reader's output, as parts of it, [units, units]."""
    wide, moment = np.asarray(reader.weight, np.float64), np.asarray(reader.moment, np.float64)
    columns = reader.columns.ravel()
    units, per_unit = reader.columns.shape
    part = wide[:, columns]
    products = (part.T @ part) * moment[np.ix_(columns, columns)]
    energy = reader.energy
    summed = products.reshape(units, per_unit, units, per_unit).sum(axis=(1, 3))
    return np.asarray(summed / energy if energy > 0 else 0 * summed, np.float64)


def _summed(steps: Sequence[Float64Array], readers: int) -> Float64Array:
    return np.cumsum(np.stack([np.zeros(readers), *steps], axis=1), axis=1)


def _damped(moment: Array, damping: float) -> Float64Array:
    """A copy in float64, damped."""
    wide = np.array(moment, np.float64, order="C")
    mean = float(np.trace(wide)) / len(wide)
    wide[np.diag_indices(len(wide))] += damping * mean if mean > 0 else 1.0
    return wide


def _inverse(moment: Float64Array) -> Float64Array:
    """The inverse, in the place of the moment, which is used up."""
    from scipy.linalg import lapack

    # LAPACK's order of axes is the other one, and the moment is symmetric: nothing is copied.
    inverse, failed = lapack.dpotrf(np.ascontiguousarray(moment).T, lower=0, clean=0, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.dpotri(inverse, lower=0, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError("the second moments have no inverse; give more samples")
    found: Float64Array = inverse.T
    for start in range(0, len(found), _PIECE):  # only what is below the diagonal was computed
        stop = start + _PIECE
        lower = np.tril(found[start:stop, start:stop])
        found[start:stop, start:stop] = lower + np.tril(lower, -1).T
        found[start:stop, stop:] = found[stop:, start:stop].T
    return found


def _check(readers: Sequence[Reader], most: int) -> int:
    """The number of units.

    Raises:
        ValueError: see `eliminate`.
    """
    if not readers:
        raise ValueError("no layer reads the units")
    units = len(readers[0].columns)
    if any(len(reader.columns) != units for reader in readers):
        raise ValueError("the readers have different units")
    if not 0 <= most <= units:
        raise ValueError(f"{most} of {units} units cannot go")
    if not all(np.isfinite(reader.moment).all() and np.isfinite(reader.weight).all() for reader in readers):
        raise ValueError("weights or second moments are no numbers")
    return units
