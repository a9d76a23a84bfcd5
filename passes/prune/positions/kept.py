"""Which positions of the kernel of one Conv stay, and the weights refitted to that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.equations import Pair
from onnxpress.passes.inputs import check_sole
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Mask
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.least_squares import error
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.positions import (
    Path,
    Taps,
    best_lattice,
    capped,
    column_path,
    shared_path,
    smallest_lattice,
)
from onnxpress.passes.refit import refit_site
from onnxpress.passes.selection import LAZY, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import Produced, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRule:
    """What is asked of each Conv: one of `positions`, `sparsity` and `error`, as the pass has them.

    Attributes:
        positions: kept in each input channel.
        sparsity: fraction that goes.
        error: relative error of the layer at most.
        per_channel: sets of positions for each input channel.
        box: positions that a smaller Conv has.
        moments: choose by second moments where there are any.
        refit: refit the kept weights where there are samples.
    """

    positions: int | None
    sparsity: float | None
    error: float | None
    per_channel: bool
    box: bool
    moments: bool
    refit: bool


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A Conv whose weight is zero where positions went.

    Attributes:
        site: the weight.
        mask: what is kept, over all groups, [in/groups, *kernel].
        action: for the report: how many positions, and what it costs the outputs.
        error: relative error of the weight.
    """

    site: Site
    mask: Mask
    action: str
    error: float


def prune_site(model: Model, site: Site, rule: KeptRule, pair: Pair | RefusalError | None) -> Kept:
    """Drop positions of one Conv and refit the others; zeros take the place of what goes.

    Args:
        model: holds the site.
        site: its weight.
        rule: what is asked.
        pair: the equations of its outputs, or why there are none; None where nobody asked for them.

    Raises:
        RefusalError: why nothing goes.
    """
    check_sole(model, site)
    before = site.array()
    taps = _taps(model, site, pair.fit if isinstance(pair, Pair) and rule.moments else None)
    kept = _choose(taps, site.shape[2:], rule)
    groups, channels = kept.shape[:2]
    spread = np.broadcast_to(kept[:, np.newaxis], (groups, site.shape[0] // groups, channels, kept.shape[2]))
    mask = spread.reshape(site.shape)
    _set_zeros(model, site, mask)
    note = f"; by the size of weights, not refitted: {pair}" if isinstance(pair, RefusalError) else ""
    if isinstance(pair, Pair):
        note = f"; {_fit(model, site, pair, mask, refit=rule.refit)}"
    union = kept.any(axis=0).reshape(channels, *site.shape[2:])
    count = f"{np.count_nonzero(kept)} of {kept.size} columns" if rule.per_channel else _count(union)
    return Kept(site, union, f"keeps {count}{note}", relative_error(before, site.array()))


def _taps(model: Model, site: Site, normal: Normal | None) -> Taps:
    """The Conv as the choice sees it; means do not count where a bias takes them up.

    Raises:
        RefusalError: its weight, or what it reads, is not finite.
    """
    groups, channels = site.groups, site.shape[1]
    weight = site.array().reshape(groups, site.shape[0] // groups, channels, -1)
    moment = None
    if normal is not None:
        moment = normal.moment / normal.count
        if intercept_of(model, site) is not None:
            mean = normal.input_sum / normal.count
            moment -= mean[:, :, np.newaxis] * mean[:, np.newaxis]
    try:
        return Taps(weight, moment)
    except ValueError as error:
        raise RefusalError(str(error)) from error


def _choose(taps: Taps, kernel: tuple[int, ...], rule: KeptRule) -> Mask:
    """What stays, [groups, in/groups, positions].

    Raises:
        RefusalError: nothing may go.
    """
    total = taps.positions
    if rule.positions is not None and rule.positions >= total:
        raise RefusalError(f"its kernel has {total} positions, no more than the {rule.positions} to keep")
    if rule.box:
        return _box(taps, kernel, rule)
    if rule.per_channel:
        return _columns(taps, rule)
    path = shared_path(taps)
    if rule.error is not None:
        count = path.within(rule.error)
        _need_some(count, path, rule.error)
    else:
        count = total - _keep(rule, total)
    return taps.kept(path.order[:count], per_channel=False)


def _columns(taps: Taps, rule: KeptRule) -> Mask:
    groups, _, channels, positions = taps.weight.shape
    size = groups * channels * positions
    if rule.positions is not None:
        path = column_path(taps, most=size)
        dropped = capped(path.order, positions, rule.positions, groups * channels)
        return taps.kept(dropped, per_channel=True)
    if rule.sparsity is not None:
        count = size - _keep(rule, size)
        return taps.kept(column_path(taps, most=count).order, per_channel=True)
    limit = rule.error or 0.0
    path = column_path(taps, most=size - 1)
    count = path.within(limit)
    _need_some(count, path, limit)
    return taps.kept(path.order[:count], per_channel=True)


def _box(taps: Taps, kernel: tuple[int, ...], rule: KeptRule) -> Mask:
    if rule.error is not None:
        lattice, _ = smallest_lattice(taps, kernel, limit=rule.error)
        if lattice.size == taps.positions:
            raise RefusalError(
                f"no box of fewer positions stays within an error of {rule.error:g}; allow more, or free"
            )
    else:
        lattice, _ = best_lattice(taps, kernel, keep=_keep(rule, taps.positions))
    gone = np.flatnonzero(~lattice.mask(kernel).reshape(-1))
    return taps.kept(gone, per_channel=False)


def _keep(rule: KeptRule, total: int) -> int:
    """How many of `total` stay.

    Raises:
        RefusalError: all of them.
    """
    if rule.positions is not None:
        return rule.positions
    sparsity = rule.sparsity or 0.0
    count = min(total - 1, round(sparsity * total))
    if not count:
        raise RefusalError(f"sparsity {sparsity:g} of {total} positions is none")
    return total - count


def _need_some(count: int, path: Path, limit: float) -> None:
    if not count:
        raise RefusalError(f"without any one position the error is {path.errors[1]:.3g} or more, above {limit:g}")


def _set_zeros(model: Model, site: Site, mask: Mask) -> None:
    """Zero what goes; a large weight is computed when it is read."""
    old = values_of(site.weight)

    def cut() -> Array:
        weight = old.load()
        return np.where(mask, weight, np.zeros((), weight.dtype))

    model.replace_weight(site.weight, cut() if old.nbytes < LAZY else Produced(old.shape, old.dtype, cut))


def _fit(model: Model, site: Site, pair: Pair, mask: Mask, *, refit: bool) -> str:
    """Refit what is kept, where samples held out say that this is better; what became of the outputs."""
    rows = site.array().reshape(site.shape[0], -1)
    try:
        if not refit:
            return f"output error {error(pair.held_out, rows):.3g}"
        choice = refit_site(model, site, pair, mask=mask)
    except (RefusalError, ValueError) as refusal:
        return f"not refitted: {refusal}"
    if math.isinf(choice.ridge):
        return f"output error {choice.after:.3g}, which refitting does not lower"
    return f"output error {choice.after:.3g}, {choice.before:.3g} before refitting"


def _count(union: Mask) -> str:
    """Positions of one channel, for all share them."""
    return f"{np.count_nonzero(union[0])} of {union[0].size} positions"
