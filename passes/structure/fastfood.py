"""Weights that are products of diagonals, matrices of Hadamard and a permutation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.encode.vectors import call
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.diagonals import Map
from onnxpress.passes.kernels.transforms import hadamard, halves, permuted, walsh
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.passes.structure.base import StructurePass
from onnxpress.passes.structure.forms import FLOAT, Form, Shape, Steps, Structure, Way, cut, sizes, small
from onnxpress.passes.structure.stacks import Between, dense_of, fit_diagonals, outputs, stacked
from onnxpress.rewriter.model import Model

_LARGEST = 1 << 15
"""Inputs at most: the permutation is stored in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class StructureFastfood(StructurePass):
    """Give layers weights S·H·G·Π·H·B, the adaptive Fastfood transform (Yang et al., "Deep Fried Convnets", 2015).

    S, G and B are diagonals, H is the matrix of Hadamard, Π a permutation drawn by the seed: three numbers an input,
    padded to a power of two. Where there are more outputs than inputs, several are stacked, with one permutation. The
    diagonals are fitted in turn, each exactly.

    For speed, each H is written as products with two small matrices of Hadamard.
    """

    name: ClassVar[str] = "structure-fastfood"

    def structure(self, shape: Shape) -> Structure:
        """The only one."""
        if shape[1] > _LARGEST:
            raise RefusalError(f"it reads {shape[1]} inputs; at most {_LARGEST} are permuted")
        return Fastfood()


@dataclass(frozen=True, slots=True)
class Fastfood:
    """Weights S·H·G·Π·H·B."""

    @property
    def name(self) -> str:
        """For a report."""
        return "adaptive Fastfood"

    def nbytes(self, shape: Shape, itemsize: int) -> int:
        """Three diagonals, and the places."""
        size = _padded(shape[1])
        return FLOAT.itemsize * 3 * size * stacked(shape, size)[0] + 2 * size

    def fit(self, target: Array, metric: Float64Array | None, seed: int) -> Form:
        """Block by block, from random signs."""
        shape, random = (target.shape[0], target.shape[1]), np.random.default_rng(seed)
        size = _padded(shape[1])
        order = random.permutation(size)

        def start() -> list[Float64Array]:
            return [np.ones(size), random.standard_normal(size), random.choice([-1.0, 1.0], size)]

        found = fit_diagonals(target, size, _between(shape[1], order), start, metric)
        return Diagonals(found, order.astype(np.uint16), shape)

    def example(self, shape: Shape) -> Form:
        """One of ones."""
        size = _padded(shape[1])
        return Diagonals(np.ones((stacked(shape, size)[0], 3, size)), np.arange(size, dtype=np.uint16)[::-1], shape)


@dataclass(frozen=True, slots=True, eq=False)
class Diagonals:
    """S, G and B of each block, [blocks, 3, n], for H of norm 1; the order of Π [n], and the shape of the weight."""

    diagonals: Array
    order: NDArray[np.uint16]
    shape: Shape

    @property
    def parameters(self) -> tuple[Array, ...]:
        """What is stored."""
        return self.diagonals, self.order

    def dense(self) -> Array:
        """The weight."""
        return dense_of(self.diagonals, self.shape, _between(self.shape[1], self.order))

    def rounded(self, dtype: np.dtype[Any]) -> Diagonals:
        """In float32, whatever the weight has."""
        return Diagonals(narrowed(self.diagonals, FLOAT), self.order, self.shape)

    def decoded(self, model: Model, hint: str) -> gs.Variable:
        """Rows of H·G, moved, times H by its two factors, and scaled."""
        blocks, _, size = self.diagonals.shape
        height, (first, second) = stacked(self.shape, size)[1], halves(size)
        scale = self.diagonals[:, 0, :height, np.newaxis] / FLOAT.type(size)
        others = self.diagonals[:, 1, np.newaxis], self.diagonals[:, 2, np.newaxis]
        stored = [
            model.add_weight(f"{hint}_{what}", np.ascontiguousarray(each))
            for what, each in zip(("scale", "middle", "signs"), (scale, *others), strict=True)
        ]
        places = model.add_weight(f"{hint}_places", np.argsort(self.order).astype(np.uint16))
        signs = {each: _signs(model, each) for each in dict.fromkeys((size, first, second))}
        top = cut(model, signs[size], (size, size), (height, size))
        shapes = [sizes(model, -1, first, second), sizes(model, blocks, height, size), sizes(model, -1, size)]
        inputs = [stored[0], stored[1], places, stored[2], top, signs[first], signs[second], *shapes]
        return cut(model, call(model, "Fastfood", inputs), (blocks * height, size), self.shape)

    def ways(self) -> tuple[Way, ...]:
        """By small matrices of Hadamard."""
        return (Way("small products of Hadamard", self._transformed),)

    def _transformed(self, steps: Steps, rows: gs.Tensor) -> gs.Tensor:
        """B, H, Π, G, H and S, one after the other."""
        blocks, _, size = self.diagonals.shape
        scale, middle, signs = (self.diagonals[:, at] for at in range(3))
        begun = steps.node("Mul", steps.reshape(rows, -1, 1, self.shape[1]), steps.constant(signs[:, : self.shape[1]]))
        if size > self.shape[1]:
            begun = steps.node("Pad", begun, steps.sizes(0, 0, 0, 0, 0, size - self.shape[1]))
        once = steps.reshape(_mixed(steps, begun, size), -1, blocks, size)
        moved = steps.node("Gather", once, steps.constant(self.order.astype(np.int64)), attrs={"axis": 2})
        twice = _mixed(steps, steps.node("Mul", moved, steps.constant(middle)), size)
        whole = steps.node("Mul", steps.reshape(twice, -1, blocks, size), steps.constant(scale / size))
        return outputs(steps, whole, self.shape, size)


def _mixed(steps: Steps, rows: gs.Tensor, size: int) -> gs.Tensor:
    """H·x of rows x of a size, [.., a, b]: H is the Kronecker product of those of a and b."""
    first, second = halves(size)
    across = steps.node("MatMul", steps.reshape(rows, -1, first, second), steps.constant(hadamard(second)))
    return steps.node("MatMul", steps.constant(hadamard(first)), across)


def _signs(model: Model, size: int) -> gs.Variable:
    """The matrix of Hadamard, computed at load."""
    powers = np.array([1 << at for at in range(max(1, size.bit_length() - 1))], np.int32)
    return call(model, "Signs", [model.add_weight("k", powers), *small(model, size)])


def _between(channels: int, order: Array) -> Between:
    """What stands between the diagonals S, G and B."""
    size = len(order)
    mixing, moving = walsh(size), permuted(order)
    middle = Map(lambda rows: mixing.times(moving.times(rows)), lambda rows: moving.turned(mixing.turned(rows)))
    return lambda height: [Map.cut(size, height).reversed(), mixing, middle, Map.cut(size, channels)]


def _padded(inputs: int) -> int:
    """The next power of two."""
    return 1 << max(1, math.ceil(math.log2(inputs)))
