"""How far codes should reach, from a histogram: what lies beyond is clipped, what lies within gets finer steps.

A histogram is `counts` [n], not negative, and `edges` [n + 1], ascending; the outer edges are the exact minimum and
maximum. Within a bin, entries are taken to be spread evenly.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxpress.passes.kernels.affine import Grid, affine_scale, symmetric_scale

Doubles: TypeAlias = NDArray[np.float64]

_SIDE = 64
"""Candidates on each side of zero."""

_THIN = 1e-3
"""A bin thinner than this part of the widest is a point: differences of its edges would be all rounding."""


def percentile_range(
    counts: ArrayLike, edges: ArrayLike, *, percent: float, symmetric: bool = False
) -> tuple[float, float]:
    """The range that holds `percent` of all entries; 100 gives minimum and maximum.

    Args:
        counts: [n].
        edges: [n + 1].
        percent: in (0, 100].
        symmetric: the entries with the smallest |x|; else as many are cut off below as above.

    Raises:
        ValueError: `percent` is not in (0, 100], or no histogram.
    """
    mass, ends = _checked(counts, edges)
    if not 0 < percent <= 100:
        raise ValueError(f"a percentage lies in (0, 100], not {percent}")
    if symmetric:
        reach = _quantile(*_folded(mass, ends), percent / 100, upper=True)
        return max(-reach, float(ends[0])), min(reach, float(ends[-1]))
    tail = (1 - percent / 100) / 2
    return _quantile(mass, ends, tail, upper=False), _quantile(mass, ends, 1 - tail, upper=True)


def mse_range(counts: ArrayLike, edges: ArrayLike, *, grid: Grid, symmetric: bool = False) -> tuple[float, float]:
    """The range at which codes have the least mean squared error, rounding and clipping together.

    The error of a candidate is exact for the histogram: with t = x/s and the nearest code n, clipped to the grid,
    ∫ (x − s·n)² dx = s³·(n/12 + (t − n)³/3), and the codes are those of `affine_scale`. Candidates come from a model
    of the error, s²/12 for each entry within and the squared distance for each beyond; the best is refined. Minimum and
    maximum are a candidate, too, so the result is never worse than they are.

    Args:
        counts: [n].
        edges: [n + 1].
        grid: the codes.
        symmetric: the zero point is 0, as in `symmetric_scale`.

    Raises:
        ValueError: no histogram.
    """
    mass, ends = _checked(counts, edges)
    full = float(ends[0]), float(ends[-1])
    if full[0] == full[1] or not mass.any():
        return full
    if symmetric:
        most = max(-full[0], full[1])
        reach = _best_reach(mass, ends, most * np.arange(1, 2 * _SIDE + 1) / (2 * _SIDE), grid)
        reach = _best_reach(mass, ends, np.append(np.minimum(reach + _fine(most / (2 * _SIDE)), most), most), grid)
        return max(-reach, full[0]), min(reach, full[1])
    lows, highs = _candidates(ends)
    low, high = _modelled(mass, ends, lows, highs, codes=grid.high - grid.low + 1)
    for part in (1.0, 0.25):  # of the distance between candidates
        steps = np.arange(-3, 4) * part
        near_low = np.clip(low + steps * max(-full[0], 0) / _SIDE, full[0], min(0.0, full[1]))
        near_high = np.clip(high + steps * max(full[1], 0) / _SIDE, max(0.0, full[0]), full[1])
        low, high = _best(mass, ends, near_low, near_high, grid)
    return low, high


def mean_squared_error(counts: ArrayLike, edges: ArrayLike, bounds: tuple[float, float], *, grid: Grid) -> float:
    """The mean squared error of a histogram on codes spread over a range, as `affine_scale` spreads them.

    Args:
        counts: [n].
        edges: [n + 1].
        bounds: the range.
        grid: the codes.

    Raises:
        ValueError: no histogram, or no entry in it.
    """
    mass, ends = _checked(counts, edges)
    if not mass.any():
        raise ValueError("a histogram without entries has no error")
    scale, zero = affine_scale(*bounds, grid)
    return float(_errors(mass, ends, scale.reshape(1), zero.reshape(1), grid)[0] / mass.sum())


def entropy_range(counts: ArrayLike, edges: ArrayLike, *, codes: int) -> tuple[float, float]:
    """The range at which codes lose the least information, by relative entropy (Migacz, 2017).

    P is the histogram within the range, with what lies beyond in its outermost bins; Q is P without that, merged to as
    many levels as there are codes and spread over the bins again that hold anything. The range with the least
    KL(P ‖ Q) wins. Both ends move, in turns, so data need not be symmetric; zero has a code of its own, so the bin
    around it counts as its neighbours do. (Migacz, "8-bit Inference with TensorRT", GPU Technology Conference 2017.)

    Args:
        counts: [n].
        edges: [n + 1].
        codes: number of codes.

    Raises:
        ValueError: no histogram, or less than two codes.
    """
    mass, ends = _checked(counts, edges)
    if codes < 2:
        raise ValueError(f"{codes} codes hold no information")
    smooth = _without_zero(mass, ends)
    first, last = 0, len(mass)
    if not smooth.any():
        return float(ends[0]), float(ends[-1])
    # Zero stays within, and so do as many bins as there are codes: fewer would be no merging at all.
    middle = int(np.clip(np.searchsorted(ends, 0.0), 0, len(mass)))
    for _ in range(3):
        before = first, last
        lasts = _between(min(max(first + codes, middle), len(mass)), len(mass))
        last = int(lasts[np.argmin(_divergences(smooth, np.array([first]), lasts, codes))])
        firsts = _between(0, max(min(last - codes, middle), 0))
        first = int(firsts[np.argmin(_divergences(smooth, firsts, np.array([last]), codes))])
        if (first, last) == before:
            break
    return float(ends[first]), float(ends[last])


def _checked(counts: ArrayLike, edges: ArrayLike) -> tuple[Doubles, Doubles]:
    mass, ends = np.asarray(counts, np.float64), np.asarray(edges, np.float64)
    if mass.ndim != 1 or ends.shape != (mass.size + 1,) or not mass.size:
        raise ValueError(f"{mass.shape} counts need one more edge, not {ends.shape}")
    if not (np.isfinite(ends).all() and (np.diff(ends) >= 0).all() and (mass >= 0).all()):
        raise ValueError("edges must be finite and ascending, counts not negative")
    return mass, ends


def _quantile(mass: Doubles, ends: Doubles, part: float, *, upper: bool) -> float:
    """Where a part of the mass lies below; where there is a gap, its lower end, or its upper one."""
    total = _running(mass)
    wanted = part * total[-1]
    index = int(np.searchsorted(total, wanted, side="right" if upper else "left"))
    if index == 0 or index == len(total):
        return float(ends[0] if index == 0 else ends[-1])
    within = (wanted - total[index - 1]) / (total[index] - total[index - 1])
    return float(ends[index - 1] + within * (ends[index] - ends[index - 1]))


def _folded(mass: Doubles, ends: Doubles) -> tuple[Doubles, Doubles]:
    """The histogram of |x|."""
    total = _running(mass)
    reach = np.unique(np.abs(np.append(ends, 0.0)))

    def below(x: Doubles, side: float) -> Doubles:
        return np.interp(x, ends, total, left=0.0, right=total[-1]) if side else x

    inside = below(reach, 1) - below(-reach, 1)
    # A point mass at an edge is within as soon as the edge is reached.
    inside[-1], inside[0] = total[-1], 0.0
    return np.diff(np.maximum.accumulate(inside)), reach


def _candidates(ends: Doubles) -> tuple[Doubles, Doubles]:
    """Low and high bounds to try: from the outer edges to zero, or the outer edge alone where zero lies beyond it."""
    parts = np.arange(_SIDE, 0, -1) / _SIDE
    lows = ends[0] * parts if ends[0] < 0 else ends[:1]
    highs = ends[-1] * parts if ends[-1] > 0 else ends[-1:]
    return np.minimum(lows, ends[-1]), np.maximum(highs, ends[0])


def _modelled(mass: Doubles, ends: Doubles, lows: Doubles, highs: Doubles, *, codes: int) -> tuple[float, float]:
    """The candidates with the least error by the model, from moments summed up once."""
    centre, width = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
    square = centre**2 + width**2 / 12
    moments = [_running(mass * power) for power in (np.ones_like(centre), centre, square)]
    rounded = _running(_without_zero(mass, ends, fill=False))

    def tail(bound: Doubles, sign: int) -> Doubles:
        zeroth, first, second = (np.interp(bound, ends, each) for each in moments)
        if sign > 0:
            zeroth, first, second = moments[0][-1] - zeroth, moments[1][-1] - first, moments[2][-1] - second
        clipped: Doubles = np.maximum(second - 2 * bound * first + bound**2 * zeroth, 0)
        return clipped

    step = (np.maximum(highs, 0)[None] - np.minimum(lows, 0)[:, None]) / (codes - 1)
    within = np.interp(highs, ends, rounded)[None] - np.interp(lows, ends, rounded)[:, None]
    error = tail(lows, -1)[:, None] + tail(highs, 1)[None] + np.maximum(within, 0) * step**2 / 12
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _best(mass: Doubles, ends: Doubles, lows: Doubles, highs: Doubles, grid: Grid) -> tuple[float, float]:
    """The pair of bounds with the least exact error; minimum and maximum are among them."""
    low, high = (each.ravel() for each in np.meshgrid(np.append(ends[0], lows), np.append(ends[-1], highs)))
    found = _errors(mass, ends, *affine_scale(low, high, grid), grid)
    at = int(np.argmin(found))  # the first of equals, and the full range comes first
    return float(low[at]), float(high[at])


def _best_reach(mass: Doubles, ends: Doubles, reaches: Doubles, grid: Grid) -> float:
    scale = symmetric_scale(reaches, grid)
    found = _errors(mass, ends, scale, np.zeros(scale.shape, np.int64), grid)
    return float(reaches[len(found) - 1 - int(np.argmin(found[::-1]))])  # the greatest of equals


def _errors(mass: Doubles, ends: Doubles, scale: ArrayLike, zero: ArrayLike, grid: Grid) -> Doubles:
    """The sum of squared errors at each scale and zero point, [candidates]."""
    step, origin = np.asarray(scale, np.float64)[:, None], np.asarray(zero, np.float64)[:, None]
    width = np.diff(ends)
    point = width <= _THIN * width.max()

    def code(x: Doubles) -> tuple[Doubles, Doubles]:
        t = x / step
        n = np.clip(np.rint(t), grid.low - origin, grid.high - origin)
        return n, t - n

    n, rest = code(ends)
    mean = np.diff(n / 12 + rest * rest * rest / 3, axis=1) * step**3 / np.where(point, 1.0, width)
    if point.any():
        mean[:, point] = (code((ends[1:] + ends[:-1])[point] / 2)[1] * step) ** 2
    error: Doubles = mean @ mass
    return error


def _fine(distance: float) -> Doubles:
    steps: Doubles = np.arange(-8, 9) * distance / 8
    return steps


def _without_zero(mass: Doubles, ends: Doubles, *, fill: bool = True) -> Doubles:
    """The counts with those of the bin that holds zero replaced by the mean of its neighbours', or by nothing."""
    result = mass.copy()
    at = int(np.searchsorted(ends, 0.0, side="right")) - 1
    if 0 <= at < len(mass) and ends[-1] > 0:
        neighbours = mass[max(at - 1, 0) : at + 2].sum() - mass[at]
        result[at] = min(mass[at], neighbours / (2 if 0 < at < len(mass) - 1 else 1)) if fill else 0.0
    return result


def _between(first: int, last: int) -> NDArray[np.int64]:
    """Some of the whole numbers from `first` to `last`."""
    return np.unique(np.linspace(first, last, _SIDE + 1).round().astype(np.int64))


def _divergences(mass: Doubles, firsts: NDArray[np.int64], lasts: NDArray[np.int64], codes: int) -> Doubles:
    """KL(P ‖ Q) of windows of bins, in nats, [windows].

    All bins of a level have the same q, so with m entries in o occupied bins of a level, Σ p·log q is Σ m·log(m/o) over
    levels, and sums over bins are differences of running sums.
    """
    first, last = np.broadcast_arrays(firsts, lasts)
    below, occupied, information = (_running(each) for each in (mass, mass > 0, _x_log_x(mass)))
    total, size = below[-1], (last - first)[:, None]
    # Bin j of a window of n belongs to level j·codes // n.
    bounds = first[:, None] - (-np.arange(codes + 1) * size // codes)
    raw, filled = np.diff(below[bounds], axis=1), np.diff(occupied[bounds], axis=1)
    clipped = np.zeros_like(raw)
    inner = below[last] - below[first]
    own = information[last] - information[first]
    row = np.arange(len(first))
    for at, beyond in ((first, below[first]), (last - 1, total - below[last])):
        own += _x_log_x(mass[at] + beyond) - _x_log_x(mass[at])
        level = (at - first) * codes // (last - first)
        clipped[row, level] += beyond
        filled[row, level] += (mass[at] == 0) & (beyond > 0)
    # What is clipped may fall on a level that holds nothing else: half an entry stands for that, not zero.
    spread = np.maximum(raw / np.maximum(filled, 1), 0.5)
    scale = (spread * filled).sum(axis=1)
    found = (own - ((raw + clipped) * np.log(spread)).sum(axis=1)) / total - np.log(total) + np.log(scale)
    return np.where(inner > 0, found, np.inf)


def _running(values: ArrayLike) -> Doubles:
    total: Doubles = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    return total


def _x_log_x(values: Doubles) -> Doubles:
    """x·log x, 0 for 0."""
    result: Doubles = values * np.log(np.where(values > 0, values, 1.0))
    return result
