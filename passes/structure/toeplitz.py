"""Weights of low displacement rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.vectors import call
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.displacement import Displaced, fit
from onnxpress.passes.selection import check_count
from onnxpress.passes.storing import narrowed
from onnxpress.passes.structure.base import StructurePass
from onnxpress.passes.structure.forms import FLOAT, Form, Shape, Steps, Structure, Way, cut, sizes, small
from onnxpress.passes.structure.fourier import check_transforms, pairs, real, scaled, transform, weighted
from onnxpress.passes.structure.stacks import outputs, spans, stacked, stacked_bytes
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, kw_only=True)
class StructureToeplitz(StructurePass):
    """Give layers Toeplitz-like weights, of low displacement rank (Sindhwani, Sainath and Kumar, 2015).

    A weight is a sum over r terms of a circulant times a skew-circulant matrix: 2·r numbers for each input. Where there
    are more outputs than inputs, several such matrices are stacked. Fitted in turn by conjugate gradients.

    For speed, products are written with ONNX's DFT, whose speed in ONNX Runtime decides: hardly ever faster.

    Attributes:
        rank: r, of the displacement; of Toeplitz matrices and their inverses it is 2.
    """

    name: ClassVar[str] = "structure-toeplitz"
    rank: int

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "rank")

    def structure(self, shape: Shape) -> Structure:
        """The rank, at most the full one."""
        return ToeplitzLike(min(self.rank, shape[1]))


@dataclass(frozen=True, slots=True)
class ToeplitzLike:
    """Weights of a displacement rank."""

    rank: int

    @property
    def name(self) -> str:
        """For a report."""
        return f"displacement rank {self.rank}"

    def nbytes(self, shape: Shape, itemsize: int) -> int:
        """Two columns for each term."""
        return stacked_bytes(shape, 2 * self.rank)

    def fit(self, target: Array, metric: Float64Array | None, seed: int) -> Form:
        """Block by block: the error of one has nothing to do with that of another."""
        shape = (target.shape[0], target.shape[1])
        found = [fit(target[each], self.rank, metric=metric) for each in spans(shape, shape[1])]
        return Terms(np.stack([each.circulant for each in found]), np.stack([each.skew for each in found]), shape)

    def example(self, shape: Shape) -> Form:
        """One of ones."""
        ones = np.ones((stacked(shape, shape[1])[0], self.rank, shape[1]))
        return Terms(ones, ones, shape)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """First columns of circulant and of skew-circulant matrices, [blocks, r, n] each, and the shape of the weight."""

    circulant: Array
    skew: Array
    shape: Shape

    @property
    def parameters(self) -> tuple[Array, ...]:
        """What is stored."""
        return self.circulant, self.skew

    def dense(self) -> Array:
        """The weight."""
        parts = zip(self.circulant.astype(np.float64), self.skew.astype(np.float64), strict=True)
        height = stacked(self.shape, self.shape[1])[1]
        return np.concatenate([Displaced(*each, height).dense() for each in parts])[: self.shape[0]]

    def rounded(self, dtype: np.dtype[Any]) -> Terms:
        """In float32, whatever the weight has."""
        return Terms(narrowed(self.circulant, FLOAT), narrowed(self.skew, FLOAT), self.shape)

    def decoded(self, model: Model, hint: str) -> gs.Variable:
        """One product of matrices, of r·n inner sizes."""
        blocks, rank, size = self.circulant.shape
        height = stacked(self.shape, size)[1]
        columns = [model.add_weight(f"{hint}_{what}", each) for what, each in zip(_NAMES, self.parameters, strict=True)]
        shapes = [sizes(model, blocks, height, rank * size), sizes(model, blocks, rank * size, size)]
        inputs = [*columns, *small(model, height, size), *shapes, sizes(model, -1, size)]
        return cut(model, call(model, "Displaced", inputs), (blocks * height, size), self.shape)

    def ways(self) -> tuple[Way, ...]:
        """By Fourier transforms."""
        return (Way("Fourier transforms", self._transformed),)

    def _transformed(self, steps: Steps, rows: gs.Tensor) -> gs.Tensor:
        """S(h) = D⁻¹·F⁻¹·diag(F·D·h)·F·D and C(g) = F⁻¹·diag(F·g)·F, with D = diag(exp(iπt/n))."""
        check_transforms(steps)
        blocks, rank, size = self.circulant.shape
        twist = np.exp(1j * np.pi * np.arange(size) / size)
        spectra = [np.fft.fft(each.reshape(-1, size)) for each in (self.circulant, self.skew * twist)]
        wide = steps.node("Mul", steps.reshape(rows, -1, 1, size, 1), steps.constant(pairs(twist)))
        skewed = scaled(steps, transform(steps, wide, 2), spectra[1])
        between = weighted(steps, transform(steps, skewed, 2, inverse=True), pairs(twist), keep=True)
        mixed = scaled(steps, transform(steps, between, 2), spectra[0])
        terms = steps.reshape(mixed, -1, blocks, rank, 2 * size)
        summed = steps.node("ReduceSum", terms, steps.sizes(2), attrs={"keepdims": 0})
        whole = real(steps, transform(steps, steps.reshape(summed, -1, blocks, size, 2), 2, inverse=True))
        return outputs(steps, whole, self.shape, size)


_NAMES = ("circulant", "skew")
