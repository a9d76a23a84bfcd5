"""Which codes a weight gets, by the method asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.blockwise.blocked import Blocked, layout_of
from onnxpress.passes.jobs import Stored
from onnxpress.passes.kernels.affine import Floats, Grid
from onnxpress.passes.kernels.awq import search_scale
from onnxpress.passes.kernels.blocks import Codes8, Steps, code_grid, from_codes, nearest_steps, rounded, to_codes
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.gptq import gptq
from onnxpress.passes.kernels.hqq import block_errors, half_quadratic_steps
from onnxpress.passes.kernels.lattice import Lattice, squared_errors
from onnxpress.passes.kernels.packing import pack_codes
from onnxpress.passes.selection import LAZY, RefusalError
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

METHODS = ("rtn", "hqq", "gptq", "awq")
NEED_SAMPLES = ("gptq", "awq")


@dataclass(frozen=True, slots=True)
class How:
    """What codes are wanted.

    Attributes:
        bits: 8, 4 or 2.
        block: entries of a row that share a scale; None for whole rows.
        method: one of METHODS.
        symmetric: without zero points.
    """

    bits: int
    block: int | None
    method: str
    symmetric: bool

    @property
    def grid(self) -> Grid:
        """All codes of so many bits."""
        return code_grid(self.bits)

    def nearest(self, rows: Floats) -> Steps:
        """Steps of rounding to nearest, with scales that are short where they can be."""
        block = self.block or rows.shape[1]
        return nearest_steps(rows, block=block, grid=self.grid, symmetric=self.symmetric).shortened()


@dataclass(frozen=True, slots=True)
class Found:
    """The codes of one weight.

    Attributes:
        blocked: the codes.
        error: ‖W − W'‖ / ‖W‖.
        told: the method and what it gained.
        gain: by how much the squared error of the output is less than with rounding to nearest.
    """

    blocked: Blocked
    error: float
    told: str
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Steps of one weight, from which its codes follow.

    Attributes:
        steps: where the codes lie.
        told: the method and what it gained.
        error: ‖W − W'‖ / ‖W‖.
    """

    steps: Steps
    told: str
    error: float


def stored(site: Site) -> Stored:
    """The weight of a site as rows that have blocks."""
    return Stored.of(site, layout=layout_of(site))


def matrix_of(site: Site) -> Floats:
    """The weight of a site as rows, float32 [rows, k].

    Raises:
        RefusalError: it holds NaN or infinities.
    """
    return _rows(stored(site))


def _rows(weight: Stored) -> Floats:
    rows = np.asarray(weight.layout.to_rows(weight.array), np.float32)
    if not np.isfinite(rows).all():
        raise RefusalError("its weight holds NaN or infinities; train or export it again")
    return rows


def by_weight(weight: Stored, how: How, *, reason: str = "") -> Chosen:
    """By a method that needs no samples: nearest where that is asked for, else half-quadratic steps.

    Half-quadratic scales and zero points are taken where their error is smaller than that of rounding to nearest.

    Args:
        weight: of float32.
        how: which codes.
        reason: why it is not by the method asked for.

    Raises:
        RefusalError: it holds NaN or infinities.
    """
    rows = _rows(weight)
    start = how.nearest(rows)
    if how.method == "rtn":
        return _chosen(rows, start, how, told="nearest")
    because = f": {reason}" if reason else ""
    better = half_quadratic_steps(rows, start, how.grid).shortened()
    plain, least = (float(block_errors(rows, each, how.grid).sum()) for each in (start, better))
    if least >= plain:
        return _chosen(rows, start, how, told=f"nearest, which hqq does not better{because}")
    told = f"hqq, squared error {1 - least / plain:.1%} less than nearest{because}"
    return _chosen(rows, better, how, told=told)


def _chosen(rows: Floats, steps: Steps, how: How, *, told: str) -> Chosen:
    return Chosen(steps, told, relative_error(rows, rounded(rows, steps, how.grid)))


def coded(site: Site, how: How, chosen: Chosen) -> Found:
    """The codes of a weight, computed again whenever they are read."""
    return Found(_blocked(site, how, chosen.steps), chosen.error, chosen.told)


def can_weigh(site: Site, moment: Floats) -> bool:
    """Whether float32 holds the layer's squared outputs, so that errors can be weighed by its inputs.

    Raises:
        RefusalError: the weight holds NaN or infinities.
    """
    rows = matrix_of(site)
    with np.errstate(over="ignore", invalid="ignore"):
        diagonal = np.trace(moment, axis1=1, axis2=2)
        return bool(np.isfinite(diagonal).all() and np.isfinite(squared_errors(rows, moment)).all())


def by_gptq(site: Site, how: How, moment: Floats) -> Found:
    """Round column by column, each making up for the errors before it."""
    rows = matrix_of(site)
    start = how.nearest(rows)
    zero = np.zeros_like(start.scale) if start.zero is None else start.zero.astype(np.float32)

    def choose(weights: Floats, importance: Floats) -> tuple[Floats, Floats]:
        spanning = nearest_steps(weights, block=weights.shape[1], grid=how.grid, symmetric=how.symmetric)
        steps = half_quadratic_steps(weights, spanning, how.grid).shortened()
        origin = np.zeros_like(steps.scale) if steps.zero is None else steps.zero.astype(np.float32)
        return steps.scale[:, 0], origin[:, 0]

    result = gptq(rows, moment, Lattice(how.grid, start.scale, zero, start.block), choose=choose)
    zeros = None if how.symmetric else result.lattice.zero.astype(np.int8)
    steps = Steps(np.asarray(result.lattice.scale, np.float32), zeros, start.block)
    before = squared_errors(rounded(rows, start, how.grid) - rows, moment).sum()
    told = _gain("gptq", rows, moment, before=float(before), after=float(result.errors.sum()))
    codes = _kept(result.codes.astype(np.int8), how.bits)
    error = relative_error(rows, from_codes(codes(), steps))
    return Found(Blocked(layout_of(site), how.bits, steps, codes), error, told)


def activation_factors(sites: list[Site], how: How, moment: Floats) -> Floats | None:
    """The factors of the inputs that all these sites read, by AWQ; None where none are better."""
    rows = np.concatenate([matrix_of(site) for site in sites])
    found = search_scale(rows, moment[0], lambda wide: rounded(wide, how.nearest(wide), how.grid))
    return found.scale if found.error < found.plain else None


def by_factors(site: Site, how: How, moment: Floats, factors: Floats) -> Found:
    """Round the weight times the factors of its inputs, by half-quadratic steps where they make the output nearer."""
    rows = matrix_of(site)
    wide = rows * factors
    start, spanning = how.nearest(rows), how.nearest(wide)
    before = squared_errors(rounded(rows, start, how.grid) - rows, moment).sum()

    def lost(steps: Steps) -> float:
        return float(squared_errors(rounded(wide, steps, how.grid) / factors - rows, moment).sum())

    choices = [spanning, half_quadratic_steps(wide, spanning, how.grid).shortened()]
    after, steps = min(((lost(each), each) for each in choices), key=lambda pair: pair[0])
    told = _gain("awq", rows, moment, before=float(before), after=float(after))
    error = relative_error(rows, rounded(wide, steps, how.grid) / factors)
    return Found(_blocked(site, how, steps, factors), error, told, float(before - after))


def _blocked(site: Site, how: How, steps: Steps, factors: Floats | None = None) -> Blocked:
    layout, values, grid = layout_of(site), values_of(site.weight), how.grid

    def codes() -> Codes8:
        wide = np.asarray(layout.to_rows(values.load()), np.float32)
        return to_codes(wide if factors is None else wide * factors, steps, grid)

    return Blocked(layout, how.bits, steps, codes, factors)


def _gain(method: str, rows: Floats, moment: Floats, *, before: float, after: float) -> str:
    """The relative error of the output with the method and with rounding to nearest."""
    total = float(squared_errors(rows, moment).sum())
    if total == 0:
        return f"{method}, on inputs of zero"
    return f"{method}, output error {np.sqrt(after / total):.2%} (nearest {np.sqrt(before / total):.2%})"


def _kept(codes: Codes8, bits: int) -> Callable[[], Codes8]:
    """Codes that cannot be computed again, packed where they are large."""
    if bits == 8 or codes.nbytes < LAZY:
        return lambda: codes
    low, shape = code_grid(bits).low, codes.shape
    packed = pack_codes((codes - np.int8(low)).view(np.uint8), bits)
    return lambda: _unpacked(packed, bits, low)[: shape[0] * shape[1]].reshape(shape)


def _unpacked(packed: NDArray[np.uint8], bits: int, low: int) -> Codes8:
    places = np.arange(0, 8, bits, dtype=np.uint8)
    wide = (packed[:, None] >> places) & np.uint8((1 << bits) - 1)
    return wide.reshape(-1).view(np.int8) + np.int8(low)
