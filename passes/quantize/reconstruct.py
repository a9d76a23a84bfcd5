"""Codes of a weight, chosen so that the layer's output changes little."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxpress.calibration.observers import SecondMoment
from onnxpress.passes.kernels.adaround import descend
from onnxpress.passes.kernels.affine import Floats, Grid, Ints
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.bias import central_moment
from onnxpress.passes.kernels.gptq import gptq
from onnxpress.passes.kernels.lattice import Lattice, Rounding, rounding, squared_errors
from onnxpress.passes.selection import RefusalError

Method: TypeAlias = Literal["nearest", "gptq", "adaround"]
METHODS: tuple[Method, ...] = get_args(Method)

DAMPING = 0.01
"""Damping of second moments of very many rows. Of n rows of k inputs it grows by k / n: few rows show directions that
other samples do not share. With 1,600 rows for 2,304 inputs, a ResNet-50 has 30.3 dB on other samples without that,
32.2 dB with codes rounded to nearest, and 33.6 dB with it."""


def rounded(
    rows: Array,
    scale: Floats,
    *,
    grid: Grid,
    moment: SecondMoment,
    method: Method,
    centred: bool = False,
) -> tuple[Ints, float]:
    """Codes at given scales, and how large the error is that they cause in the layer's output.

    Args:
        rows: the weight as `Layout.to_rows` gives it, [out, k]; group g of a convolution owns an equal share.
        scale: [] or [out], positive.
        grid: symmetric codes.
        moment: of what the layer reads, with its view.
        method: `nearest`; `gptq`, where later columns make up for earlier ones; `adaround`, which goes on from there
            and moves single codes while that helps. No row gets worse from one to the next.
        centred: count only what is left once the bias takes the mean error away (`kernels.bias.bias_correction`).

    Returns:
        Codes [out, k] of the grid's dtype, and ‖(W − Q)·X‖ / ‖W·X‖ over the samples.

    Raises:
        RefusalError: no rows were seen, or they do not fit the weight, or either is not finite.
    """
    if moment.empty:
        raise RefusalError("the samples show it no row without NaN or infinities")
    if not np.isfinite(rows).all():
        raise RefusalError("its weight holds NaN or infinities; train or export it again")
    total = central_moment(moment.total, moment.sum, moment.count) if centred else moment.total
    try:
        steps = np.broadcast_to(np.asarray(scale, np.float32).reshape(-1), (len(rows),))
        lattice = Lattice.of(steps, grid, width=rows.shape[1])
        wholly = squared_errors(rows, moment.total)
        found = _round(rows, total, lattice, method, damping=DAMPING + rows.shape[1] / moment.count)
    except ValueError as error:
        raise RefusalError(f"its weight cannot be rounded by samples: {error}") from error
    return found.codes, _share(found.errors, wholly)


def importance_of(moment: SecondMoment, *, rows: int) -> Floats:
    """The mean square of every input of each row of a weight, [rows, k], for `kernels.scales.mse_scale`."""
    square = np.einsum("gkk->gk", moment.total) / max(1, moment.count)
    return np.repeat(square, rows // max(1, len(square)), axis=0)


def _round(rows: Array, total: Floats, lattice: Lattice, method: Method, *, damping: float) -> Rounding:
    if method == "nearest":
        return rounding(rows, lattice.nearest(rows), lattice, total)
    found = gptq(rows, total, lattice, damping=damping)
    return descend(rows, total, found, damping=damping) if method == "adaround" else found


def _share(errors: Float64Array, wholly: Float64Array) -> float:
    whole = float(wholly.sum())
    return float(np.sqrt(errors.sum() / whole)) if whole else 0.0
