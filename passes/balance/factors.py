"""Constants that are multiplied by one factor a channel of a tensor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.selection import LAZY
from onnxpress.rewriter.edits import output_ids, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Array, Produced, read, values_of

Channels: TypeAlias = NDArray[np.int64]
"""Numbers of channels, of a shape that broadcasts against a tensor."""

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A constant that takes the factors of some channels.

    Attributes:
        node: reads the constant.
        index: as this input.
        channels: the number of the channel that each entry belongs to; broadcasts against the constant.
        divides: the constant is a divisor, so it is divided by the factors.
    """

    node: gs.Node
    index: int
    channels: Channels
    divides: bool = False

    @property
    def constant(self) -> gs.Constant:
        """The constant as it is now."""
        return self.node.inputs[self.index]

    def spread(self, factors: NDArray[np.float64]) -> NDArray[np.float32]:
        """A factor for each channel, [channels], such that it broadcasts against the constant."""
        factor = factors[self.channels]
        return np.asarray(1 / factor if self.divides else factor, np.float32)

    @property
    def is_weight(self) -> bool:
        """Whether it is the weight of a linear layer, not a bias or the like."""
        return self.node.op in LINEAR and self.index < 2


def absorb(model: Model, targets: Collection[Target], factors: NDArray[np.float64]) -> None:
    """Multiply the channels of a tensor by factors.

    Args:
        model: holds the targets.
        targets: of `Absorber.plan`.
        factors: [channels], positive.
    """
    public = output_ids(model)
    for target in targets:
        constant, scale = target.constant, target.spread(factors)
        alone = len(constant.outputs) == 1 and id(constant) not in public
        if alone and covers(constant, scale.shape):
            scale_constant(model, constant, scale)
        else:  # others read it, or it gets wider
            scaled = model.add_weight(f"{constant.name}_scaled", np.asarray(read(constant) * scale, np.float32))
            set_input(target.node, target.index, scaled)


def scale_constant(model: Model, constant: gs.Constant, scale: Array) -> None:
    """Multiply a constant by what broadcasts to its shape; a large one when it is read."""
    old = values_of(constant)
    if old.nbytes < LAZY:
        model.replace_weight(constant, np.asarray(old.load() * scale, old.dtype))
    else:
        model.replace_weight(
            constant, Produced(old.shape, old.dtype, lambda: np.asarray(old.load() * scale, old.dtype))
        )


def covers(constant: gs.Constant, shape: tuple[int, ...]) -> bool:
    """Whether a constant is as wide as something of this shape, so that a product of both has its shape."""
    full = tuple(constant.shape)
    return len(full) >= len(shape) and fits(shape, full)


def fits(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts against the last axes of another without widening it."""
    return all(size in (1, full) for size, full in zip(reversed(shape), reversed(wide), strict=False))
