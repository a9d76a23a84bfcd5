"""What a weight takes and what error that causes, at several sparsities and widths of codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxpress.passes.encode.options import Option as Stored
from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.allocation import Option, hull
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.least_squares import error, solve
from onnxpress.passes.prune.trials import Altered, Trials
from onnxpress.passes.prune.zeros.budget import harm_of
from onnxpress.passes.prune.zeros.criteria import Criterion
from onnxpress.passes.prune.zeros.layers import Attempt, Layer
from onnxpress.passes.prune.zeros.patterns import Form, Unstructured
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.share.codebooks import SPARSE
from onnxpress.passes.share.coder import Coder
from onnxpress.passes.share.offers import Known
from onnxpress.passes.share.stored import distinct_plans, least, stored_as
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_SAMPLED = 1 << 17
"""Weights that tell for all of a site about which only these are known."""

_TRACE = 1e-6
"""Importance of a weight that reads nothing, as part of the mean."""

_SETTLED = 1e-4
"""Where values have settled well enough to be judged by; those that are written settle further."""

_WIDTHS = 4
"""Widths that are measured, at most."""

_USUAL = 0.03
HARMS = (_USUAL, 0.3, 0.003)
"""Noise of a layer at which what it does to the model is measured; that of a weight at the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is measured.

    Attributes:
        sparsities: ascending.
        widths: bits of codes, ascending.
        huffman: whether Huffman codes may be taken.
        points: of `HARMS` at which a layer is tried in the model.
    """

    sparsities: tuple[float, ...]
    widths: tuple[int, ...]
    huffman: bool
    points: int = len(HARMS)

    @property
    def measured(self) -> tuple[int, ...]:
        """Widths that are measured: a few, for noise between them is nearly straight in its logarithm."""
        wanted = np.geomspace(self.widths[0], self.widths[-1], _WIDTHS)
        return tuple(sorted({min(self.widths, key=lambda each: abs(each - want)) for want in wanted}))

    def densities(self, before: float) -> Float64Array:
        """Parts that may stay of a weight, ascending; it gets no denser than it is."""
        wanted = {min(before, 1 - each) for each in self.sparsities}
        return np.array(sorted(wanted))


def density_of(array: Array) -> float:
    """The part of a weight that is not zero; 1 where that is nearly all.

    Raises:
        RefusalError: nothing is.
    """
    zeros = 1 - np.count_nonzero(array) / array.size
    if zeros == 1:
        raise RefusalError("all its weights are zero already")
    return 1 - zeros if zeros > SPARSE else 1.0


def by_layer(model: Model, site: Site, pair: Pair, grid: Grid, trials: Trials) -> Known:
    """A layer whose equations are known: some outputs are pruned and coded, and judged on samples held out.

    Raises:
        RefusalError: its equations cannot be solved.
    """
    criterion = Criterion("alps", Unstructured(), Form.of(site))
    layer = Layer.of(model, site, pair, criterion, reconstruct=True)
    before = density_of(layer.weight)
    densities = grid.densities(before)
    fit, held_out = (each.outputs(layer.chosen) for each in (pair.fit, pair.held_out))

    def attempt(weight: Array) -> Attempt:
        shift = solve(fit, weight, ridge=math.inf, bias=True)[1] if layer.biased else None
        return Attempt(weight, shift, error(held_out, weight, shift) ** 2)

    try:
        pruned, damping = _pruned(layer, densities, before)
        importance = _importance(pair, len(pruned[0]))
        with threads_for(layer.weight.shape[1]):
            coders = [_coder(weight, importance, d, grid) for d, weight in zip(densities, pruned, strict=True)]
            known = _known(site, before, densities, coders, grid, lambda coded: attempt(coded).noise)
            harms = _harms(
                known, coders, HARMS[: grid.points], lambda coded: harm_of(site, layer, attempt(coded), trials)
            )
    except ValueError as problem:
        raise RefusalError(str(problem)) from problem
    return replace(known, harms=harms, damping=damping)


def by_weight(site: Site, grid: Grid, trials: Trials | None) -> Known:
    """A weight about whose layer nothing is known: its own error counts, and what that does to the model, if it can be.

    Raises:
        RefusalError: it holds what is no number.
    """
    layout, array = Layout.of(site), site.array()
    rows = layout.to_rows(array)
    step = max(1, math.ceil(rows.size / _SAMPLED))
    some = rows[:: min(step, len(rows))].astype(np.float64)
    before = density_of(some)
    densities = grid.densities(before)
    try:
        pruned = [largest(some, density) for density in densities]
        coders = [_coder(weight, None, d, grid) for d, weight in zip(densities, pruned, strict=True)]
    except ValueError as problem:
        raise RefusalError(str(problem)) from problem
    known = _known(site, before, densities, coders, grid, lambda coded: relative_error(some, coded) ** 2)

    if trials is None or not trials.useful or not trials.takes(site.name):
        return known
    row, column = _near(known, _USUAL)
    whole = largest(rows, float(densities[row]))
    coded = _coder(whole, None, float(densities[row]), grid).shared(grid.measured[column])
    noise = relative_error(rows, coded) ** 2
    ratio = trials.noise({site.name: Altered(layout.from_rows(coded), None)}) / noise if noise else math.nan
    return replace(known, harms=((noise, ratio),) if 0 < ratio < math.inf else ())


def largest(weight: Array, density: float) -> Array:
    """A weight of which only the largest stay."""
    kept = round(density * weight.size)
    if kept >= np.count_nonzero(weight):
        return weight
    sizes = np.abs(weight)
    border = np.partition(sizes.reshape(-1), weight.size - kept)[weight.size - kept] if kept else np.inf
    return np.where(sizes >= border, weight, 0).astype(weight.dtype)


def _pruned(layer: Layer, densities: Float64Array, before: float) -> tuple[list[Array], float]:
    """Some outputs at each density, as they are where nothing goes; and the damping with which they were pruned."""
    less = [float(1 - each) for each in densities if each < before]
    damping = layer.damping(less[len(less) // 2]) if less else 1.0
    found = [layer.attempt(sparsity, damping).weight for sparsity in less]
    return found + [layer.weight[layer.rows].astype(np.float64)] * (len(densities) - len(less)), damping


def _coder(weight: Array, importance: Array | None, density: float, grid: Grid) -> Coder:
    return Coder(weight, importance, keep_zero=density < 1, huffman=grid.huffman, settled=_SETTLED)


def _importance(pair: Pair, rows: int) -> Array | None:
    """Of each weight of some outputs, by what it reads, in steps of 6 dB; the mean is about one."""
    squares = np.einsum("gkk->gk", pair.fit.moment + pair.held_out.moment)
    mean = float(squares.mean())
    if not 0 < mean < math.inf:
        return None
    steps = np.exp2(2 * np.rint(np.log2(np.maximum(squares / mean, _TRACE)) / 2))
    return np.repeat(steps.astype(np.float32), rows // len(squares), axis=0)


def _known(
    site: Site,
    before: float,
    densities: Float64Array,
    coders: Sequence[Coder],
    grid: Grid,
    judge: Callable[[Array], float],
) -> Known:
    """Bytes and noise at all points."""
    shape, axes, dtype = site.shape, list(site.axes), site.array().dtype
    turned = axes.index("out") > axes.index("in") if {"out", "in"} <= set(axes) else False
    nbytes, noise = np.empty((2, len(densities), len(grid.measured)))
    plans: list[list[tuple[Stored, ...]]] = [[] for _ in coders]
    for row, coder in enumerate(coders):
        for column, width in enumerate(grid.measured):
            coded = coder.shared(width)
            as_stored = np.ascontiguousarray(coded.T if turned else coded).astype(dtype)
            found = distinct_plans(stored_as(as_stored, huffman=grid.huffman, whole=shape))
            nbytes[row, column], noise[row, column] = least(found).nbytes, judge(coded)
            plans[row].append(found)
    widths = np.array(grid.measured, np.float64)
    dense = plans[0][0][0].nbytes
    return Known(site, before, densities, widths, nbytes, noise, plans, (), dense, grid.huffman)


def _near(known: Known, noise: float) -> tuple[int, int]:
    """The corner of the hull that has about so much noise."""
    flat = [Option(known.dense - n, e) for n, e in zip(known.nbytes.flat, known.noise.flat, strict=True)]
    corners = hull(flat)
    best = min(corners, key=lambda k: abs(math.log(max(flat[k].error, 1e-30) / noise)))
    row, column = np.unravel_index(best, known.noise.shape)
    return int(row), int(column)


def _harms(
    known: Known, coders: Sequence[Coder], noises: Sequence[float], harm: Callable[[Array], float]
) -> tuple[tuple[float, float], ...]:
    """What some noises of the layer do to the model."""
    found = {}
    for row, column in dict.fromkeys(_near(known, each) for each in noises):
        noise, ratio = float(known.noise[row, column]), harm(coders[row].shared(float(known.widths[column])))
        if noise > 0 and 0 < ratio < math.inf:
            found[noise] = ratio
    return tuple(sorted(found.items()))
