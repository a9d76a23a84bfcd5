"""Weights made of circulant blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.vectors import call
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.circulant import dense, fit
from onnxpress.passes.kernels.transforms import fourier
from onnxpress.passes.selection import RefusalError, check_count
from onnxpress.passes.storing import narrowed
from onnxpress.passes.structure.base import StructurePass
from onnxpress.passes.structure.forms import Form, Shape, Steps, Structure, Way, cut, sizes, small
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, kw_only=True)
class StructureCirculant(StructurePass):
    """Give layers weights of circulant blocks (Cheng et al., 2015; in blocks: Ding et al., "CirCNN", 2017).

    Of b x b weights one column is stored, the others are the same numbers turned. The nearest such weight, under any
    metric of the inputs, is found exactly. A weight of independent numbers keeps but 1/b of its energy: meant for
    networks that were trained so, or for few layers.

    For speed, blocks are diagonal in the frequency domain: a small Fourier transform of each block of inputs, written
    as MatMul, one product of matrices for each frequency, and the way back take 2/b of the multiply-adds. Or a
    convolution over the padded inputs, which reads 1/b of the weights. The faster one is taken. (ONNX Runtime's own DFT
    was 1.2 to 7 times slower than that MatMul wherever it was tried.)

    Attributes:
        block: b, 2 or more; the larger side of a weight makes it one circulant matrix.
    """

    name: ClassVar[str] = "structure-circulant"
    block: int

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "block", least=2)

    def structure(self, shape: Shape) -> Structure:
        """Blocks, at most as large as the weight."""
        return Circulant(min(self.block, max(shape)))


@dataclass(frozen=True, slots=True)
class Circulant:
    """Weights of circulant blocks of a size."""

    block: int

    @property
    def name(self) -> str:
        """For a report."""
        return f"circulant blocks of {self.block}"

    def nbytes(self, shape: Shape, itemsize: int) -> int:
        """One column of each block."""
        return itemsize * self.block * -(-shape[0] // self.block) * -(-shape[1] // self.block)

    def fit(self, target: Array, metric: Float64Array | None, seed: int) -> Form:
        """The nearest one."""
        return Columns(fit(target, self.block, metric=metric), (target.shape[0], target.shape[1]))

    def example(self, shape: Shape) -> Form:
        """One of ones."""
        counts = [-(-size // self.block) for size in shape]
        return Columns(np.ones((*counts, self.block)), shape)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """First columns of blocks [p, q, b], and the shape of the weight, at most [p·b, q·b]."""

    columns: Array
    shape: Shape

    @property
    def parameters(self) -> tuple[Array, ...]:
        """What is stored."""
        return (self.columns,)

    def dense(self) -> Array:
        """The weight."""
        return dense(self.columns, self.shape)

    def rounded(self, dtype: np.dtype[Any]) -> Columns:
        """In the type of the weight."""
        return Columns(narrowed(self.columns, dtype), self.shape)

    def decoded(self, model: Model, hint: str) -> gs.Variable:
        """One Gather of places that are computed."""
        p, q, block = self.columns.shape
        whole = (p * block, q * block)
        columns = model.add_weight(f"{hint}_columns", self.columns)
        wide = call(model, "Circulant", [columns, *small(model, block), sizes(model, *whole)])
        return cut(model, wide, whole, self.shape)

    def ways(self) -> tuple[Way, ...]:
        """By frequencies, and as a convolution."""
        p, q, block = self.columns.shape
        if (p * block, q * block) != self.shape:
            raise RefusalError(
                f"blocks of {block} do not divide its {self.shape[0]} outputs and {self.shape[1]} inputs"
            )
        convolution = Way("convolution over the padded inputs", self._convolved)
        return (convolution,) if block % 2 else (Way("products by frequency", self._by_frequency), convolution)

    def _convolved(self, steps: Steps, rows: gs.Tensor) -> gs.Tensor:
        """y_i[s] = Σ_j Σ_u c_ij[b − 1 − u]·x_j[(s + u + 1) mod b]."""
        _, q, block = self.columns.shape
        turned = steps.constant(np.arange(1, 2 * block, dtype=np.int64) % block)
        padded = steps.node("Gather", steps.reshape(rows, -1, q, block), turned, attrs={"axis": 2})
        return steps.node("Conv", padded, steps.constant(self.columns[:, :, ::-1]))

    def _by_frequency(self, steps: Steps, rows: gs.Tensor) -> gs.Tensor:
        """[n, q, b] to frequencies [b/2, n, 2q], times [b/2, 2q, 2p], and back."""
        p, q, block = self.columns.shape
        half, forth = block // 2, fourier(block).reshape(block, block)
        waves = steps.node("MatMul", steps.reshape(rows, -1, q, block), steps.constant(forth))
        apart = steps.node("Transpose", steps.reshape(waves, -1, q, half, 2), attrs={"perm": [2, 0, 1, 3]})
        mixed = steps.node("MatMul", steps.reshape(apart, half, -1, 2 * q), self._spectra(steps))
        together = steps.node("Transpose", steps.reshape(mixed, half, -1, p, 2), attrs={"perm": [1, 2, 0, 3]})
        return steps.node("MatMul", steps.reshape(together, -1, p, block), steps.constant(np.linalg.inv(forth)))

    def _spectra(self, steps: Steps) -> gs.Variable:
        """For each frequency the products of pairs, [b/2, 2q, 2p], computed of the columns at load."""
        model, (p, q, block) = steps.model, self.columns.shape
        columns, basis = (steps.constant(each) for each in (self.columns, pairs(block)))
        shapes = [sizes(model, p, q, block // 2, 2, 2), sizes(model, block // 2, 2 * q, 2 * p)]
        return call(model, "Spectra", [columns, basis, *shapes])


def pairs(block: int) -> Float64Array:
    """What a first column does to each pair of frequencies, [b, b/2·2·2]: products of complex numbers.

    With c = a + bi it takes the row (x, y) to (x, y)·[[a, b], [−b, a]]; the first pair are two real numbers.
    """
    real, imaginary = np.moveaxis(fourier(block), 2, 0)
    found = np.empty((block, block // 2, 2, 2))
    found[:, :, 0, 0] = found[:, :, 1, 1] = real
    found[:, :, 0, 1], found[:, :, 1, 0] = imaginary, -imaginary
    found[:, 0] = 0
    found[:, 0, 0, 0], found[:, 0, 1, 1] = real[:, 0], imaginary[:, 0]
    return found.reshape(block, 2 * block)
