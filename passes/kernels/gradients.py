"""One factor of an einsum by conjugate gradients, where its equations are too many to be solved directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.einsums import Form, contract, size_of

_ITERATIONS = 8
"""At most, unless stated otherwise: the other factors change in the next sweep anyway, and more do not pay."""

_ENOUGH = 1e-4
"""Part of the first gradient's norm at which it rests."""

_FLOOR = 1e-6
"""Part of the mean diagonal that is added to what the preconditioner inverts."""


def descend(
    form: Form,
    factors: Sequence[Float64Array],
    index: int,
    target: Float64Array,
    metric: Array | None,
    *,
    through: Callable[[Float64Array], Float64Array] | None = None,
    iterations: int = _ITERATIONS,
) -> Float64Array:
    """Lower tr((W − T)·H·(W − T)ᵀ) over one factor, from where it is; each iteration lowers it.

    Args:
        form: tells W by the factors.
        factors: all.
        index: of the one that changes.
        target: T, [rows, k].
        metric: H, [k, k]; None for the identity.
        through: gives rows·H [rows, k], where there is a quicker way; None for the product.
        iterations: at most; each takes a product with H.
    """
    shape = tuple(form.sizes(factors)[letter] for letter in form.result)
    own = list(factors)

    def seen_by(rows: Float64Array) -> Float64Array:
        """Rows·H as the result of the form."""
        flat = rows.reshape(target.shape)
        return (flat if metric is None else flat @ metric if through is None else through(flat)).reshape(shape)

    def made(factor: Float64Array) -> Float64Array:
        own[index] = factor
        return form.dense(own)

    smooth = _Preconditioner.of(form, factors, index, metric)
    found = factors[index].copy()
    gradient = form.adjoint(factors, index, seen_by(target - made(found).reshape(target.shape)))
    direction = step = smooth(gradient)
    slope = first = float(np.vdot(gradient, step))
    for _ in range(iterations):
        if not slope > _ENOUGH**2 * first or not np.isfinite(slope):
            break
        seen = form.adjoint(factors, index, seen_by(made(direction)))
        curve = float(np.vdot(direction, seen))
        if not curve > 0:
            break
        found = found + slope / curve * direction
        gradient = gradient - slope / curve * seen
        step = smooth(gradient)
        before, slope = slope, float(np.vdot(gradient, step))
        direction = step + slope / before * direction
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Preconditioner:
    """An inverse of nearly the equations: a Kronecker product of small matrices, apart for each batch index.

    Letters of the factor that the result shares with the others are batch; for each letter that is summed the Gram
    matrix of the other factors, traced over all else; for the columns that the factor alone has the metric, traced
    over the others. Exact where no metric mixes columns, and only one letter is summed.

    Attributes:
        order: of the factor's axes: batch, summed, free.
        shape: [batch, each summed letter, rows that are free, columns].
        inverses: [batch, n, n] for axes 1, 2, ... of `shape`; None for the rows.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    inverses: tuple[Float64Array | None, ...]

    @classmethod
    def of(cls, form: Form, factors: Sequence[Float64Array], index: int, metric: Array | None) -> _Preconditioner:
        """Build it of the other factors and the metric."""
        letters, sizes = form.operands[index], form.sizes(factors)
        others = "".join(each for number, each in enumerate(form.operands) if number != index)
        batch = "".join(each for each in letters if each in form.result and each in others)
        summed = "".join(each for each in letters if each not in form.result)
        row = form.result[0] if form.result[0] in letters and form.result[0] not in batch else ""
        columns = "".join(each for each in letters if each in form.result and each not in batch + row)
        weight = _traced(form, factors, index, batch, "").reshape(-1)
        scale = np.where(weight > 0, weight, 1.0)[:, None, None]
        grams = [
            _traced(form, factors, index, batch, letter).reshape(-1, sizes[letter], sizes[letter])
            / (scale if number else 1.0)
            for number, letter in enumerate(summed)
        ]
        spread = _spread(form, sizes, metric, batch, columns)
        spread = np.broadcast_to(spread, (len(weight), *spread.shape[1:])) if len(spread) == 1 else spread
        if not summed:
            spread = spread * scale
        return cls(
            tuple(letters.index(each) for each in batch + summed + row + columns),
            (
                len(weight),
                *(sizes[each] for each in summed),
                size_of(row, sizes),
                size_of(columns, sizes),
            ),
            (*map(_inverse, grams), None, _inverse(spread)),
        )

    def __call__(self, gradient: Float64Array) -> Float64Array:
        """The step for a gradient."""
        turned = gradient.transpose(self.order)
        found = turned.reshape(self.shape)
        for axis, inverse in enumerate(self.inverses, start=1):
            if inverse is not None:
                front = np.moveaxis(found, axis, 1)
                product = inverse @ front.reshape(*front.shape[:2], -1)
                found = np.moveaxis(product.reshape(front.shape), 1, axis)
        return np.ascontiguousarray(found.reshape(turned.shape).transpose(np.argsort(self.order)))


def _traced(form: Form, factors: Sequence[Float64Array], index: int, batch: str, letter: str) -> Float64Array:
    """The Gram matrices of the other factors for one letter, for each batch index, summed over all else.

    [*batch, n, n], or [*batch] without a letter. Letters between the other factors are summed on each side apart.
    """
    others = [number for number in range(len(factors)) if number != index]
    apart = {each for each in form.summed if each not in form.operands[index]} | {letter}
    names = dict(zip(sorted(apart - {""}), _unused(form), strict=False))
    twins = ["".join(names.get(each, each) for each in form.operands[other]) for other in others]
    both = ",".join([*(form.operands[other] for other in others), *twins])
    wanted = batch + letter + names.get(letter, "")
    return contract(f"{both}->{wanted}", *(factors[other] for other in others * 2))


def _spread(form: Form, sizes: dict[str, int], metric: Array | None, batch: str, columns: str) -> Float64Array:
    """The metric of some columns, for each batch index, averaged over the other columns: [batch or 1, n, n]."""
    count = size_of(columns, sizes)
    if metric is None:
        return np.eye(count)[None]
    all_columns = form.result[1:]
    names = dict(zip(columns, _unused(form), strict=False))
    twin = "".join(names.get(each, each) for each in all_columns)
    inside = "".join(each for each in batch if each in all_columns)
    wide = metric.reshape([sizes[each] for each in all_columns] * 2)
    other = size_of("".join(each for each in all_columns if each not in columns + inside), sizes)
    wanted = inside + columns + "".join(names[each] for each in columns)
    averaged = np.einsum(f"{all_columns}{twin}->{wanted}", wide).astype(np.float64) / other
    found: Float64Array = averaged.reshape(-1, count, count)
    row = form.result[0]
    if row not in batch:
        return found
    # the row is one of the batch letters, wherever it stands among them
    rest = [sizes[each] for each in batch if each != row]
    tiled = np.broadcast_to(
        np.expand_dims(found.reshape(*rest, count, count), batch.index(row)),
        [*(sizes[each] for each in batch), count, count],
    )
    return tiled.reshape(-1, count, count)


def _unused(form: Form) -> str:
    used = set("".join(form.operands))
    return "".join(each for each in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if each not in used)


def _inverse(matrices: Float64Array) -> Float64Array:
    """Of positive matrices [batch, n, n], with a floor."""
    size = matrices.shape[-1]
    mean = np.einsum("bnn->b", matrices) / size
    floor = np.where(mean > 0, _FLOOR * mean, 1.0)
    return np.asarray(np.linalg.inv(matrices + floor[:, None, None] * np.eye(size)), np.float64)
