"""Weights that are products of diagonals and discrete cosine transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.vectors import call
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.diagonals import Map
from onnxpress.passes.kernels.transforms import cosine
from onnxpress.passes.selection import check_count
from onnxpress.passes.storing import narrowed
from onnxpress.passes.structure.base import StructurePass
from onnxpress.passes.structure.forms import FLOAT, Form, Shape, Steps, Structure, Way, cut, sizes, small
from onnxpress.passes.structure.fourier import check_transforms, pairs, real, transform, weighted
from onnxpress.passes.structure.stacks import Between, dense_of, fit_diagonals, outputs, stacked, stacked_bytes
from onnxpress.rewriter.model import Model

_SPREAD = 0.1
"""Standard deviation of the diagonals around 1 at the start (Moczulski et al., section 6)."""


@dataclass(frozen=True, kw_only=True)
class StructureACDC(StructurePass):
    """Give layers weights A·C⁻¹·D·C, or products of several such (Moczulski et al., "ACDC", 2016).

    A and D are diagonals, C is the discrete cosine transform: 2·n numbers a layer of it. Where there are more outputs
    than inputs, several are stacked. The diagonals are fitted in turn, each exactly.

    For speed, transforms are written with ONNX's DFT, whose speed in ONNX Runtime decides: hardly ever faster.

    Attributes:
        layers: factors A·C⁻¹·D·C of a weight.
    """

    name: ClassVar[str] = "structure-acdc"
    layers: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "layers")

    def structure(self, shape: Shape) -> Structure:
        """That many factors."""
        return Cosines(self.layers)


@dataclass(frozen=True, slots=True)
class Cosines:
    """Weights of some factors A·C⁻¹·D·C."""

    layers: int

    @property
    def name(self) -> str:
        """For a report."""
        return f"{self.layers} layer{'s' * (self.layers > 1)} of ACDC"

    def nbytes(self, shape: Shape, itemsize: int) -> int:
        """Two diagonals a layer."""
        return stacked_bytes(shape, 2 * self.layers)

    def fit(self, target: Array, metric: Float64Array | None, seed: int) -> Form:
        """Block by block, from diagonals near 1."""
        shape, random = (target.shape[0], target.shape[1]), np.random.default_rng(seed)

        def start() -> list[Float64Array]:
            return list(1 + _SPREAD * random.standard_normal((2 * self.layers, shape[1])))

        return Diagonals(fit_diagonals(target, shape[1], _between(shape[1], self.layers), start, metric), shape)

    def example(self, shape: Shape) -> Form:
        """One of ones."""
        return Diagonals(np.ones((stacked(shape, shape[1])[0], 2 * self.layers, shape[1])), shape)


@dataclass(frozen=True, slots=True, eq=False)
class Diagonals:
    """Diagonals a, d, a, d, … of each block, [blocks, 2·layers, n], and the shape of the weight."""

    diagonals: Array
    shape: Shape

    @property
    def parameters(self) -> tuple[Array, ...]:
        """What is stored."""
        return (self.diagonals,)

    def dense(self) -> Array:
        """The weight."""
        count, size = self.diagonals.shape[1:]
        return dense_of(self.diagonals, self.shape, _between(size, count // 2))

    def rounded(self, dtype: np.dtype[Any]) -> Diagonals:
        """In float32, whatever the weight has."""
        return Diagonals(narrowed(self.diagonals, FLOAT), self.shape)

    def decoded(self, model: Model, hint: str) -> gs.Variable:
        """Rows of A·C⁻¹ times each diagonal and transform that follow."""
        blocks, count, size = self.diagonals.shape
        height = stacked(self.shape, size)[1]
        values = [model.add_weight("k", np.array(each, FLOAT)) for each in _constants(size)]
        forth = call(model, "Cosine", [*small(model, size), *values])
        back = call(model, "Arrange", [forth, sizes(model, size, size)], attrs={"perm": [1, 0]})
        first = model.add_weight(f"{hint}_0", np.ascontiguousarray(self.diagonals[:, 0, :height, np.newaxis]))
        top = back if height == size else cut(model, back, (size, size), (height, size))
        rows = call(model, "Scale", [first, top])
        for at in range(1, count):
            diagonal = model.add_weight(f"{hint}_{at}", np.ascontiguousarray(self.diagonals[:, at, np.newaxis]))
            rows = call(model, "Diagonal", [rows, diagonal, forth if at % 2 else back])
        flat = call(model, "Arrange", [rows, sizes(model, -1, size)], attrs={"perm": [0, 1]})
        return cut(model, flat, (blocks * height, size), self.shape)

    def ways(self) -> tuple[Way, ...]:
        """By Fourier transforms."""
        return (Way("Fourier transforms", self._transformed),)

    def _transformed(self, steps: Steps, rows: gs.Tensor) -> gs.Tensor:
        """The last factor comes first: x is a column to the weight."""
        check_transforms(steps)
        _, count, size = self.diagonals.shape
        found = steps.reshape(rows, -1, 1, size)
        for at in reversed(range(0, count, 2)):
            waves = steps.node("Mul", _forth(steps, found, size), steps.constant(self.diagonals[:, at + 1]))
            found = steps.node("Mul", _back(steps, waves, size), steps.constant(self.diagonals[:, at]))
        return outputs(steps, found, self.shape, size)


def _between(size: int, layers: int) -> Between:
    """What stands between the diagonals."""
    forth = cosine()
    return lambda height: [Map.cut(size, height).reversed(), *[forth.reversed(), forth] * layers]


def _constants(size: int) -> tuple[float, float, float]:
    """Angle of a step, and the norms of all frequencies but the first, and of the first."""
    return math.pi / (2 * size), math.sqrt(2 / size), math.sqrt(1 / size)


def _angles(size: int) -> tuple[Array, Float64Array]:
    """exp(iπk/2n), and the norm of each frequency."""
    step, norm, first = _constants(size)
    return np.exp(1j * step * np.arange(size)), np.array([first, *[norm] * (size - 1)])


def _order(size: int) -> Array:
    """Even places, then odd ones backwards: so Fourier's transform gives the cosine transform (Makhoul, 1980)."""
    return np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)[::-1]])


def _forth(steps: Steps, rows: gs.Tensor, size: int) -> gs.Tensor:
    """C·x of rows x [n, blocks, size]."""
    angles, norms = _angles(size)
    moved = steps.node("Gather", rows, steps.constant(_order(size)), attrs={"axis": 2})
    alone = steps.node("Unsqueeze", moved, steps.sizes(3))
    return weighted(steps, transform(steps, alone, 2), pairs(angles * norms), keep=False)


def _back(steps: Steps, waves: gs.Tensor, size: int) -> gs.Tensor:
    """C⁻¹·x: with u the waves by their norms, the spectrum is exp(iπk/2n)·(u_k − i·u_(n−k)), where u_n is zero."""
    angles, norms = _angles(size)
    mirror = -np.arange(size) % size
    other = angles * (1 / norms)[mirror] * -1j
    other[0] = 0
    turned = steps.node("Gather", waves, steps.constant(mirror), attrs={"axis": 2})
    both = [(waves, angles / norms), (turned, other)]
    parts = [
        steps.node("Mul", steps.node("Unsqueeze", each, steps.sizes(3)), steps.constant(pairs(by))) for each, by in both
    ]
    found = real(steps, transform(steps, steps.node("Add", *parts), 2, inverse=True))
    return steps.node("Gather", found, steps.constant(np.argsort(_order(size))), attrs={"axis": 2})
