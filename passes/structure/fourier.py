"""Nodes that compute with Fourier transforms: complex numbers are pairs along the last axis, as ONNX's DFT has them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.structure.forms import Steps

OLDEST = 17
"""Opset that brought DFT."""
_AXIS_AS_INPUT = 20

Complex = NDArray[np.complex128]


def check_transforms(steps: Steps) -> None:
    """Refuse models that are too old.

    Raises:
        RefusalError: says what they lack.
    """
    if steps.model.opset < OLDEST:
        raise RefusalError(f"opset {steps.model.opset} lacks DFT: raise it to {OLDEST}")


def transform(steps: Steps, tensor: gs.Tensor, axis: int, *, inverse: bool = False) -> gs.Tensor:
    """The discrete Fourier transform along an axis, of numbers [.., 1] or pairs [.., 2]."""
    attrs: dict[str, object] = {"inverse": int(inverse)}
    if steps.model.opset < _AXIS_AS_INPUT:
        return steps.node("DFT", tensor, attrs=attrs | {"axis": axis})
    where = steps.constant(np.array(axis, np.int64))
    return steps.node("DFT", tensor, gs.Variable.empty(), where, attrs=attrs)


def scaled(steps: Steps, tensor: gs.Tensor, factors: Complex) -> gs.Tensor:
    """Pairs [.., 2] times complex numbers, which have the axes before the last."""
    straight = steps.node("Mul", tensor, steps.constant(factors.real[..., np.newaxis]))
    swapped = steps.node("Gather", tensor, steps.sizes(1, 0), attrs={"axis": -1})
    crossed = steps.node("Mul", swapped, steps.constant(np.stack([-factors.imag, factors.imag], axis=-1)))
    return steps.node("Add", straight, crossed)


def weighted(steps: Steps, tensor: gs.Tensor, weights: Float64Array, *, keep: bool) -> gs.Tensor:
    """Σ of pairs times weights [.., 2]: real numbers."""
    both = steps.node("Mul", tensor, steps.constant(weights))
    return steps.node("ReduceSum", both, steps.sizes(-1), attrs={"keepdims": int(keep)})


def real(steps: Steps, tensor: gs.Tensor) -> gs.Tensor:
    """The first of each pair."""
    return steps.node("Gather", tensor, steps.constant(np.array(0, np.int64)), attrs={"axis": -1})


def pairs(numbers: Array) -> Float64Array:
    """Complex numbers as pairs."""
    return np.stack([numbers.real, numbers.imag], axis=-1)
