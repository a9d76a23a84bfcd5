"""The structured weight of one layer: nearest to its weight, or to what the layer should give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.aims import Aim, ridge_for, shift_for
from onnxpress.passes.equations import Pair
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.least_squares import error
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.passes.structure.forms import Form, Structure
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is to take the place of a weight.

    Attributes:
        form: the weight, as the model stores it.
        shift: what the bias gains; None for nothing.
        error: ‖W − W'‖ / ‖W‖.
        account: what else there is to tell; may be empty.
    """

    form: Form
    shift: Float64Array | None
    error: float
    account: str


def find(model: Model, site: Site, structure: Structure, pair: Pair | RefusalError | None, *, seed: int) -> Found:
    """Fit the weight of a layer.

    Args:
        model: holds the layer.
        site: its weight.
        structure: what the weight becomes.
        pair: the equations of the layer, or why it has none; None where there are no samples.
        seed: of what is random.

    Raises:
        RefusalError: there is no such weight.
    """
    rows = Layout.of(site).to_rows(site.array())
    try:
        with threads_for(rows.shape[1]):
            if isinstance(pair, Pair):
                return _learnt(site, structure, rows, pair, seed=seed, bias=intercept_of(model, site) is not None)
            form = structure.fit(rows, None, seed).rounded(values_of(site.weight).dtype)
    except (ValueError, np.linalg.LinAlgError) as failure:
        raise RefusalError(str(failure)) from failure
    account = f"by its weights alone, for {pair}" if pair is not None else ""
    return Found(form, None, relative_error(rows, form.dense()), account)


def write(model: Model, site: Site, found: Found) -> None:
    """Give a layer the dense weight and the bias, so that the layers behind read what it will give.

    Raises:
        RefusalError: the type of weight or bias cannot hold them; nothing was changed.
    """
    weight = narrowed(Layout.of(site).from_rows(found.form.dense()), values_of(site.weight).dtype)
    intercept = intercept_of(model, site)
    if found.shift is not None and intercept is not None:
        intercept.add(model, found.shift)
    model.replace_weight(site.weight, weight)


def _learnt(site: Site, structure: Structure, rows: Array, pair: Pair, *, seed: int, bias: bool) -> Found:
    dtype, total = values_of(site.weight).dtype, pair.total
    ridge = ridge_for(pair, rows, bias=bias)

    def fitted(aim: Aim) -> Form:
        return structure.fit(aim.target, aim.metric[0], seed)

    plain = structure.fit(rows, None, seed)
    trial = fitted(Aim.of(pair.fit, rows, ridge, bias=bias)).dense()
    before = error(pair.held_out, plain.dense())
    after = error(pair.held_out, trial, shift_for(pair.fit, trial, bias=bias))
    if not after < before:
        form, shift = plain.rounded(dtype), None
        account = f"output error {before:.2%} on samples held out, not corrected"
    else:
        form = fitted(Aim.of(total, rows, ridge, bias=bias)).rounded(dtype)
        shift = shift_for(total, form.dense(), bias=bias)
        account = f"output error {before:.2%} -> {after:.2%} on samples held out"
    return Found(form, shift, relative_error(rows, form.dense()), account)
