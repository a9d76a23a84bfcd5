"""New weights for the layers of a pruned model, fitted so that each gives what the original's layer gave.

Layer by layer in graph order, each of what it reads in the pruned model, whose layers before are refitted already; so
a layer also makes up for what those before could not (He et al., "Channel Pruning for Accelerating Very Deep Neural
Networks", 2017; Luo et al., "ThiNet", 2017). No labels, no gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Mask
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.least_squares import RIDGES, Choice, choose_ridge, solve
from onnxpress.passes.report import Report
from onnxpress.passes.row_sums import Indices
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

__all__ = ["Pair", "equations", "refit", "refit_site"]

_EXACT = 1e-3
"""Relative error of a layer's output that rounding explains, of squares summed in float32: nothing to make up for."""


def refit(
    model: Model,
    original: Model,
    sites: Sequence[Site],
    bench: Workbench,
    report: Report,
    *,
    kept_out: Mapping[str, Indices] | None = None,
) -> None:
    """Refit the layers of a pruned model one after the other; weights that are zero stay zero.

    A layer keeps its weight where a refitted one is no better on samples held out. Every site ends in the report.

    Args:
        model: pruned; it is changed.
        original: what it was before, with the same names.
        sites: weights of the model to refit, in any order.
        bench: brings the samples.
        report: takes the account.
        kept_out: rows of the original's matrices that are left, as `equations` has it.

    Raises:
        FeedError: there are no samples.
    """
    for site, pair in equations(model, original, sites, bench, kept_out=kept_out):
        if isinstance(pair, RefusalError):
            report.skip(site.name, f"is not refitted: {pair}")
            continue
        before = site.array()
        try:
            choice = refit_site(model, site, pair, mask=zeros_of(before))
        except RefusalError as refusal:
            report.skip(site.name, f"is not refitted: {refusal}")
            continue
        if math.isinf(choice.ridge):
            report.skip(site.name, f"is not refitted: {_why(choice)}")
        else:
            report.change(site.name, account(choice), error=relative_error(before, site.array()))


def refit_site(
    model: Model, site: Site, pair: Pair, *, mask: Mask | None = None, ridges: Sequence[float] = RIDGES
) -> Choice:
    """Give one layer the weight, and where it has one the bias, that fits its equations best; or leave both.

    The ridge, which draws the new weight towards the one that is there, is the one that does best on held-out samples
    when fitted on the others; the weight is then fitted on all samples.

    Args:
        model: holds the site.
        site: whose weight is replaced.
        pair: its equations.
        mask: which weights there are, in the stored layout; others are zero. None for all.
        ridges: to choose from.

    Returns:
        The choice; with an infinite ridge nothing was changed.

    Raises:
        RefusalError: no equations can be solved, or the type of weight or bias cannot hold the result; nothing was
            changed.
    """
    layout, stored = Layout.of(site), site.array()
    intercept = intercept_of(model, site)
    rows = layout.to_rows(stored)
    allowed = None if mask is None else layout.to_rows(mask)
    fitted = intercept is not None
    try:
        with threads_for(rows.shape[1]):
            choice = choose_ridge(pair.fit, pair.held_out, rows, ridges=ridges, mask=allowed, bias=fitted)
            if choice.before < _EXACT or math.isinf(choice.ridge):
                return Choice(math.inf, choice.before, choice.before)
            found, delta = solve(pair.total, rows, ridge=choice.ridge, mask=allowed, bias=fitted, overwrite=True)
    except ValueError as error:
        raise RefusalError(str(error)) from error
    weight = narrowed(layout.from_rows(found), stored.dtype)
    if intercept is not None and delta is not None:
        intercept.add(model, delta)
    model.replace_weight(site.weight, weight)
    return choice


def zeros_of(stored: Array) -> Mask | None:
    """Which weights there are: those that are not zero; None where none is zero."""
    mask = np.asarray(stored) != 0
    return None if mask.all() else mask


def account(choice: Choice) -> str:
    """A choice as a phrase with its figures."""
    return f"refitted: output error {100 * choice.before:.3g} % -> {100 * choice.after:.3g} % (ridge {choice.ridge:g})"


def _why(choice: Choice) -> str:
    if choice.before < _EXACT:
        return "its output is as before, there is nothing to make up for"
    return f"that does not lower the error of its output on held-out samples, {100 * choice.before:.3g} %"
