"""A kernel as an einsum of factors, fitted to what a layer should give by alternating least squares.

An expression such as "or,rsyx,si->oiyx" (Tucker-2) tells how the dense kernel [out, in, *k] comes of the factors: the
first letter of the result is the output channel, the others, in their order, are the columns of the matrix [out, k]
that the kernel is. Letters of factors that the result lacks are summed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.einsums import Form, balance, norms_along, size_of
from onnxpress.passes.kernels.gradients import descend
from onnxpress.passes.kernels.supports import solve_dense
from onnxpress.passes.kernels.tensor import DegenerateError
from onnxpress.passes.kernels.whitened import check_metric

_EXPLODED = 30.0
"""Terms this many times larger than what they add up to cancel each other: degenerate."""

_PULL = 1e-10
"""Part of the mean diagonal by which a factor is drawn to where it was: singular systems become solvable, and what
they leave free does not grow."""

_STEP = 1.0
"""How much further than a sweep went is tried first, as a part of its own way."""

_LARGE = 512
"""Columns from which products with the metric are in float32: a relative error of 1e-6 of what is off."""

_PIECE = 256
"""Rows of the metric that are taken at a time."""

_ROWS = 4096
"""Unknowns of a row up to which its equations are solved directly."""


def dense(expression: str, factors: Sequence[Array]) -> Float64Array:
    """The kernel that the factors stand for, [out, in, *k] float64.

    Args:
        expression: an einsum with an arrow; no letter twice in one factor.
        factors: one for each operand.

    Raises:
        ValueError: shapes that do not fit the expression.
    """
    form = Form.of(expression)
    form.sizes(factors)
    return form.dense(factors)


def balanced(expression: str, factors: Sequence[Array]) -> tuple[Float64Array, ...]:
    """The same kernel by factors whose slices of each summed letter have equal norms in all that hold it.

    Raises:
        ValueError: shapes that do not fit the expression.
    """
    form = Form.of(expression)
    form.sizes(factors)
    return tuple(balance(form, factors))


def fit(
    expression: str,
    factors: Sequence[Array],
    target: Array,
    metric: Array | None = None,
    *,
    sweeps: int = 20,
    tolerance: float = 1e-3,
) -> tuple[tuple[Float64Array, ...], float]:
    """Alternating least squares: each factor in turn takes the value that is best while the others stay.

    Minimises tr((W − T)·H·(W − T)ᵀ), W the matrix of `dense`. A factor whose rows are independent of each other is
    solved for exactly, any other by conjugate gradients. It never ends worse than it starts, and depends on nothing
    but its arguments.

    Args:
        expression: see `dense`.
        factors: the start, of any float dtype; not changed.
        target: T, [out, k], or a kernel of the expression's result [out, in, *k].
        metric: H, [k, k], symmetric, not negative; it may be singular. None for the identity.
        sweeps: turns at most through all factors; with 0 the start is judged and balanced.
        tolerance: gain of a sweep, relative to the error, below which it rests.

    Returns:
        The factors, balanced, and the relative error √(tr((W − T)·H·(W − T)ᵀ) / tr(T·H·Tᵀ)).

    Raises:
        ValueError: shapes that do not fit the expression, or values that are not finite.
        DegenerateError: terms grow and cancel each other, so float32 could not hold the result.
    """
    form = Form.of(expression)
    problem = _Problem.of(form, form.sizes(factors), target, metric)
    if not problem.whole:
        return tuple(np.zeros(each.shape) for each in factors), 0.0
    start, quick = balance(form, factors), problem.quickened()
    found, error = _alternate(quick, start, sweeps, tolerance)
    found = balance(form, found)
    if quick is not problem:
        error, before = problem.error(found), problem.error(start)
        found, error = (found, error) if error <= before else (start, before)  # where all that is left is rounding
    _refuse_degenerate(form, found)
    return tuple(found), error


def _alternate(
    problem: _Problem, found: list[Float64Array], sweeps: int, tolerance: float
) -> tuple[list[Float64Array], float]:
    """Sweeps, each gone on with in its direction where that is better still, so that far fewer are needed.

    Which is checked, so that the error only falls; the step grows while that holds (after Rajih et al., "Enhanced line
    search", 2008).
    """
    error, step = problem.error(found), _STEP
    for _ in range(sweeps):
        best = problem.sweep(found)
        after = problem.error(best)
        if not after < error:
            break
        further = [new + step * (new - old) for new, old in zip(best, found, strict=True)]
        beyond = problem.error(further)
        step = 1.5 * step if beyond < after else max(_STEP / 2, step / 2)
        if beyond < after:
            best, after = further, beyond
        gained, found, error = error - after, best, after
        if gained <= tolerance * error:
            break
    return found, error


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What is to be fitted.

    Attributes:
        form: of the factors; the first letter of its result is the row.
        sizes: of all letters.
        target: T, [rows, k].
        metric: H, [k, k], or None.
        whole: tr(T·H·Tᵀ).
        narrow: H over `scale` in float32, where it is so large that products with it are what takes the time.
        scale: mean of its diagonal.
    """

    form: Form
    sizes: dict[str, int]
    target: Float64Array
    metric: Array | None
    whole: float
    narrow: NDArray[np.float32] | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, form: Form, sizes: dict[str, int], target: Array, metric: Array | None) -> _Problem:
        """Check that all belongs together."""
        shape = tuple(sizes[letter] for letter in form.result)
        if target.shape not in (shape, (shape[0], math.prod(shape[1:]))):
            raise ValueError(f"'{form.expression}' gives {list(shape)}, the target is {list(target.shape)}")
        wide = target.reshape(shape[0], -1).astype(np.float64)
        check_metric(wide, metric)
        whole = float(np.vdot(wide if metric is None else wide @ metric, wide))
        return cls(form, sizes, wide, metric, whole)

    def quickened(self) -> _Problem:
        """The same with a large metric in float32, too."""
        if self.metric is None or len(self.metric) < _LARGE:
            return self
        scale = float(np.trace(self.metric)) / len(self.metric)
        narrow = np.empty(self.metric.shape, np.float32)
        np.divide(self.metric, scale, out=narrow, casting="same_kind")
        return replace(self, narrow=narrow, scale=scale)

    def through(self, rows: Float64Array) -> Float64Array:
        """Rows·H, about."""
        if self.metric is None:
            return rows
        if self.narrow is None:
            return np.asarray(rows @ self.metric)
        size = float(np.abs(rows).max()) or 1.0
        return np.asarray((rows / size).astype(np.float32) @ self.narrow, np.float64) * (size * self.scale)

    def error(self, factors: Sequence[Array]) -> float:
        """Relative error, about."""
        lost = self.form.dense(factors).reshape(self.target.shape) - self.target
        return math.sqrt(max(0.0, float(np.vdot(self.through(lost), lost))) / self.whole)

    def sweep(self, factors: Sequence[Float64Array]) -> list[Float64Array]:
        """Every factor once, each with those before as they are now."""
        found = list(factors)
        for index in range(len(found)):
            found[index] = self.solved(found, index)
        return found

    def solved(self, factors: Sequence[Float64Array], index: int) -> Float64Array:
        """The best value of one factor."""
        part, own, at = _narrowed(self, factors, index)
        row, letters = part.form.result[0], part.form.operands[at]
        unknowns = size_of(letters.replace(row, ""), part.sizes)
        if part.form.holders(row) == [at] and unknowns <= _ROWS:
            return _by_rows(part, own, at, unknowns)
        return descend(part.form, own, at, part.target, part.metric, through=part.through)


def _narrowed(
    problem: _Problem, factors: Sequence[Float64Array], index: int
) -> tuple[_Problem, list[Float64Array], int]:
    """The same problem for one factor with fewer rows, where another factor L alone writes the rows.

    ‖L·X − T‖ = ‖R·X − Qᵀ·T‖ + constant, L = Q·R. And where the factor asked for is the only one behind a plain matrix
    L, its best rows are those for the target L⁺·T, each for itself.
    """
    form, row = problem.form, problem.form.result[0]
    holders = form.holders(row)
    if len(holders) != 1 or holders[0] == index:
        return problem, list(factors), index
    first = holders[0]
    inner = form.operands[first].replace(row, "")
    wide = np.moveaxis(factors[first], form.operands[first].index(row), 0).reshape(len(problem.target), -1)
    if len(inner) == 1 and inner not in form.result and form.holders(inner) == sorted((first, index)):
        target = np.asarray(np.linalg.lstsq(wide, problem.target, rcond=1e-12)[0], np.float64)
        left = [number for number in range(len(factors)) if number != first]
        narrow = Form(tuple(form.operands[number] for number in left), inner + form.result[1:])
        part = replace(problem, form=narrow, target=target)
        return part, [factors[number] for number in left], left.index(index)
    if wide.shape[1] >= wide.shape[0]:
        return problem, list(factors), index
    basis, upper = np.linalg.qr(wide)
    sizes = problem.sizes | {row: len(upper)}
    own = list(factors)
    shaped = upper.reshape([len(upper), *(sizes[letter] for letter in inner)])
    own[first] = np.moveaxis(shaped, 0, form.operands[first].index(row))
    return replace(problem, sizes=sizes, target=np.asarray(basis.T @ problem.target, np.float64)), own, index


def _by_rows(problem: _Problem, factors: Sequence[Float64Array], index: int, unknowns: int) -> Float64Array:
    """Each row of a factor by itself: F·(B·H·Bᵀ) = T·H·Bᵀ, with B what the other factors make of its unknowns."""
    form, letters = problem.form, problem.form.operands[index]
    row = letters.index(form.result[0])
    rest = [problem.sizes[letter] for letter in letters if letter != form.result[0]]

    def onto(rows: Float64Array) -> Float64Array:
        """Rows·Bᵀ, [rows, unknowns], some rows at a time, for the product may copy them."""
        given = rows.reshape(len(rows), *(problem.sizes[each] for each in form.result[1:]))
        found = (form.adjoint(factors, index, given[at : at + _PIECE]) for at in range(0, len(rows), _PIECE))
        return np.concatenate([np.moveaxis(each, row, 0).reshape(-1, unknowns) for each in found])

    if problem.metric is not None and set(letters) & set(form.result[1:]):  # most of B is zero: it is not built
        seen = np.ascontiguousarray(onto(problem.metric).T)
    else:
        unit = np.moveaxis(np.eye(unknowns).reshape(unknowns, *rest), 0, row)
        basis = form.dense([*factors[:index], unit, *factors[index + 1 :]]).reshape(unknowns, -1)
        seen = problem.through(basis)
    before = np.moveaxis(factors[index], row, 0).reshape(len(problem.target), unknowns)
    found = _solve(onto(seen), problem.target @ seen.T, before)
    return np.moveaxis(found.reshape(-1, *rest), 0, row)


def _solve(gram: Float64Array, right: Float64Array, before: Float64Array) -> Float64Array:
    """F of F·G = R, drawn slightly to where it was."""
    mean = float(np.trace(gram)) / len(gram)
    return before + solve_dense(gram, right - before @ gram, damping=_PULL * mean) if mean > 0 else before


def _refuse_degenerate(form: Form, factors: Sequence[Float64Array]) -> None:
    """Refuse terms that cancel each other; only of letters in three factors or more can they grow without end."""
    total = float(np.linalg.norm(form.dense(factors)))
    for letter in form.summed:
        if len(form.holders(letter)) < 3:
            continue
        terms = float(np.linalg.norm(norms_along(form, factors, letter).prod(axis=0)))
        if not terms <= _EXPLODED * total:
            raise DegenerateError(
                f"'{form.expression}' with {factors[form.holders(letter)[0]].shape} is degenerate: its terms are "
                f"{terms / total if total else math.inf:.3g} times larger than the kernel and cancel; lower the rank"
            )
