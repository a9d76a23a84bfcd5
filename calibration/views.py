"""How the activation that a linear layer reads is seen as rows which the layer's weight multiplies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array
from onnxpress.rewriter.errors import ConfigError

Rows: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = NDArray[np.int64]


class View(Protocol):
    """Rows x of an activation, such that the layer computes W·x of each; hashable, and equal where it sees the same.

    A layer of several groups has one weight matrix a group, and so one set of rows a group.
    """

    def count(self, shape: tuple[int, ...], /) -> int:
        """How many rows an activation of a shape has in each group.

        Raises:
            ConfigError: no activation of that layer has this shape.
        """
        ...

    def rows(self, array: Array, positions: Positions | None = None, /) -> Rows:
        """The rows of an activation.

        Args:
            array: the activation, of any numeric dtype.
            positions: which rows, numbered as `count` counts them; None for all. Only these take memory.

        Returns:
            [groups, n, k], float32, in the order of `positions`.

        Raises:
            ConfigError: no activation of that layer has this shape.
        """
        ...


@dataclass(frozen=True, slots=True)
class LastAxis:
    """Rows along the last axis, [.., k] -> [1, n, k]: the left side of a product of matrices."""

    def count(self, shape: tuple[int, ...], /) -> int:
        """The product of all axes but the last."""
        _need(shape, rank=1)
        return math.prod(shape[:-1])

    def rows(self, array: Array, positions: Positions | None = None, /) -> Rows:
        """As `View.rows`."""
        _need(array.shape, rank=1)
        flat = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
        return _wide(flat if positions is None else flat[positions])[np.newaxis]


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows along the last axis but one, [.., k, m] -> [1, n, k]: the right side of a product of matrices.

    An activation of one axis is one column.
    """

    def count(self, shape: tuple[int, ...], /) -> int:
        """The product of all axes but the last but one."""
        _need(shape, rank=1)
        return 1 if len(shape) == 1 else math.prod(shape[:-2]) * shape[-1]

    def rows(self, array: Array, positions: Positions | None = None, /) -> Rows:
        """As `View.rows`."""
        chosen = _all(self.count(array.shape)) if positions is None else positions
        if array.ndim == 1:
            return _wide(array[np.newaxis])[np.newaxis, chosen]
        matrices = array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:])
        width = max(1, array.shape[-1])
        return _wide(matrices[chosen // width, :, chosen % width])[np.newaxis]


AutoPad: TypeAlias = Literal["SAME_UPPER", "SAME_LOWER"]


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches that a convolution multiplies, [N, C, ..] -> [groups, N·positions, C/groups·kernel] (im2col).

    A row holds channel by channel what lies under the kernel, in the order of the weight [out, C/groups, *kernel].

    Attributes:
        kernel: its size along each spatial axis; 1 to 3 axes are usual, any number works.
        strides: along each axis.
        pads: zeros before each axis, then after each, as ONNX has them; or SAME_UPPER or SAME_LOWER.
        dilations: along each axis.
        groups: into which the channels fall.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...] | AutoPad
    dilations: tuple[int, ...]
    groups: int = 1

    def count(self, shape: tuple[int, ...], /) -> int:
        """Samples times positions of the kernel."""
        return shape[0] * math.prod(size for size, _ in self._extents(shape))

    def rows(self, array: Array, positions: Positions | None = None, /) -> Rows:
        """As `View.rows`."""
        extents = self._extents(array.shape)
        chosen = _all(self.count(array.shape)) if positions is None else positions
        batch, channels = array.shape[:2]
        taps = math.prod(self.kernel)
        out = np.zeros((self.groups, len(chosen), channels // self.groups, taps), np.float32)
        # An activation without entries has none to look up, but may have rows, of zeros, where pads are wide enough.
        if array.size:
            sample, *origin = self._origins(chosen, extents)
            flat = array.reshape(batch, channels, -1)
            for tap, (inside, place) in enumerate(self._places(origin, array.shape[2:])):
                seen = _wide(flat[sample[inside], :, place[inside]])
                out[..., tap][:, inside] = seen.reshape(-1, self.groups, channels // self.groups).transpose(1, 0, 2)
        return out.reshape(self.groups, len(chosen), -1) if out.size else _no_rows(out.shape)

    def _origins(self, chosen: Positions, extents: list[tuple[int, int]]) -> list[Positions]:
        """Of each row the sample, and where the kernel begins along each axis; before 0 in the padding."""
        rest, begins = chosen, []
        for (size, pad), stride in zip(reversed(extents), reversed(self.strides), strict=True):
            begins.append(rest % size * stride - pad)
            rest = rest // size
        return [rest, *reversed(begins)]

    def _places(
        self, origin: list[Positions], spatial: tuple[int, ...]
    ) -> Iterator[tuple[NDArray[np.bool_], Positions]]:
        """For each tap of the kernel: which rows see no padding there, and the flat index of what they see."""
        for offsets in product(*(range(size) for size in self.kernel)):
            inside = np.ones(len(origin[0]), np.bool_)
            place = np.zeros(len(origin[0]), np.int64)
            for begin, offset, dilation, size in zip(origin, offsets, self.dilations, spatial, strict=True):
                along = begin + offset * dilation
                inside &= (along >= 0) & (along < size)
                place = place * size + along
            yield inside, place

    def _extents(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """Along each spatial axis how many positions the kernel has, and the zeros before the first entry."""
        rank = len(self.kernel) + 2
        if len(shape) != rank or shape[1] % self.groups:
            raise ConfigError(
                f"an activation of shape {list(shape)} is none of a convolution with a kernel {list(self.kernel)} in "
                f"{self.groups} groups; give one with {rank} axes and channels that fall into the groups"
            )
        return [self._extent(axis, size) for axis, size in enumerate(shape[2:])]

    def _extent(self, axis: int, size: int) -> tuple[int, int]:
        stride, reach = self.strides[axis], (self.kernel[axis] - 1) * self.dilations[axis] + 1
        if isinstance(self.pads, tuple):
            before, after = self.pads[axis], self.pads[axis + len(self.kernel)]
            return max(0, (size + before + after - reach) // stride + 1), before
        count = -(-size // stride)
        missing = max(0, (count - 1) * stride + reach - size)
        return count, missing // 2 if self.pads == "SAME_UPPER" else missing - missing // 2


def spread(total: int, count: int) -> Positions:
    """At most `count` of the positions 0 .. total−1, one in each of as many equal stretches, in order.

    Where in its stretch a position lies follows the golden ratio: steps of equal length would fall into the columns
    of an image.

    Args:
        total: positions there are.
        count: wanted.
    """
    if total <= count:
        return _all(total)
    steps = np.arange(count + 1, dtype=np.int64)
    begins = steps * total // count
    return begins[:-1] + (steps[:-1] * _GOLDEN % 1 * np.diff(begins)).astype(np.int64)


_GOLDEN = (math.sqrt(5) - 1) / 2


def _all(count: int) -> Positions:
    return np.arange(count, dtype=np.int64)


def _wide(array: Array) -> Rows:
    return np.ascontiguousarray(array, np.float32)


def _no_rows(shape: tuple[int, ...]) -> Rows:
    return np.zeros((shape[0], shape[1], math.prod(shape[2:])), np.float32)


def _need(shape: tuple[int, ...], *, rank: int) -> None:
    if len(shape) < rank:
        raise ConfigError("a number is no activation of a product of matrices; observe a tensor with axes")
