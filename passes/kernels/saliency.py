"""How much each weight of a linear layer matters, by what the layer reads."""

from __future__ import annotations

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array


def magnitude(weight: Array) -> Float64Array:
    """w² (Han et al., 2015).

    Args:
        weight: [out, k].

    Returns:
        [out, k].
    """
    return np.square(weight, dtype=np.float64)


def obd(weight: Array, moment: Array) -> Float64Array:
    """w²·M_jj: what the squared error of the outputs grows by where one weight alone goes.

    LeCun et al., "Optimal Brain Damage" (1990), for the error of one layer, whose second derivatives are M = Σ x·xᵀ.

    Args:
        weight: [out, k]; group g of a grouped layer owns an equal share of the rows.
        moment: [groups, k, k].

    Returns:
        [out, k], which add up where inputs are uncorrelated.

    Raises:
        ValueError: shapes that do not fit.
    """
    return magnitude(weight) * _spread(weight, moment)


def wanda(weight: Array, moment: Array) -> Float64Array:
    """The rank of |w|·‖x‖ among the weights of one output, as a part of them.

    Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (2024): weights are compared within
    an output. One threshold on ranks does that.

    Args:
        weight: [out, k].
        moment: [groups, k, k].

    Returns:
        [out, k], in (0, 1].

    Raises:
        ValueError: shapes that do not fit.
    """
    order = np.argsort(obd(weight, moment), axis=1, kind="stable")
    ranks = np.empty(weight.shape)
    places = np.broadcast_to(np.arange(1, weight.shape[1] + 1) / weight.shape[1], weight.shape)
    np.put_along_axis(ranks, order, places, axis=1)
    return ranks


def _spread(weight: Array, moment: Array) -> Float64Array:
    """Σ x² of the input that each weight multiplies, [out, k].

    Raises:
        ValueError: shapes that do not fit.
    """
    groups = moment.shape[0] if moment.ndim == 3 else 0
    if weight.ndim != 2 or not groups or moment.shape[1:] != 2 * weight.shape[1:] or weight.shape[0] % groups:
        raise ValueError(f"moments {list(moment.shape)} do not fit a weight {list(weight.shape)}")
    squares = np.maximum(np.einsum("gkk->gk", moment), 0).astype(np.float64)
    return np.repeat(squares, weight.shape[0] // groups, axis=0)
