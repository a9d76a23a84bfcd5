"""How the kernel of a convolution moves over its input, and how a smaller one does to see the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.lattices import Lattice
from onnxpress.passes.selection import RefusalError

Spatial = tuple[int | None, ...]
"""Sizes of an activation behind batch and channels; None where unknown."""


@dataclass(frozen=True, slots=True)
class Window:
    """The kernel of a convolution along each spatial axis.

    Attributes:
        kernel: its sides.
        strides: steps between its places.
        dilations: steps between its entries.
        before: zeros before the first entry of the input; negative where entries are cut off.
        after: the same behind the last.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, node: gs.Node, kernel: Sequence[int], spatial: Spatial) -> Window:
        """That of a Conv, with `auto_pad` written out.

        Raises:
            RefusalError: `auto_pad` depends on a size that is unknown.
        """
        axes, attrs = len(kernel), node.attrs
        strides = tuple(int(each) for each in attrs.get("strides") or (1,) * axes)
        dilations = tuple(int(each) for each in attrs.get("dilations") or (1,) * axes)
        reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=True)]
        auto = str(attrs.get("auto_pad") or "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            missing = [_missing(*each) for each in zip(spatial, strides, reach, strict=True)]
            less, more = tuple(each // 2 for each in missing), tuple(each - each // 2 for each in missing)
            before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
        else:
            given = () if auto == "VALID" else attrs.get("pads") or ()
            pads = tuple(int(each) for each in given) or (0,) * 2 * axes
            before, after = pads[:axes], pads[axes:]
        return cls(tuple(kernel), strides, dilations, before, after)

    def places(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """How many places the kernel has along each axis, which is the size of the output."""
        return tuple(self._span(axis, size) // self.strides[axis] + 1 for axis, size in enumerate(spatial))

    def narrowed(self, lattice: Lattice, spatial: Spatial) -> Window:
        """The window of the kernel that has the positions of `lattice` only, and sees the same at each place."""
        before, after = [], []
        for axis, side in enumerate(self.kernel):
            start, step, count = lattice.start[axis], lattice.step[axis], lattice.count[axis]
            dilation = self.dilations[axis]
            before.append(self.before[axis] - start * dilation)
            end = self.after[axis] - (side - 1 - start - (count - 1) * step) * dilation
            after.append(end if end >= 0 else end + min(-end, self._idle(axis, spatial[axis])))
        dilations = zip(self.dilations, lattice.step, lattice.count, strict=True)
        wider = tuple(dilation * step if count > 1 else 1 for dilation, step, count in dilations)
        return Window(lattice.count, self.strides, wider, tuple(before), tuple(after))

    @property
    def reach(self) -> tuple[int, ...]:
        """Entries from the first to the last that the kernel sees at one place."""
        return tuple((side - 1) * dilation + 1 for side, dilation in zip(self.kernel, self.dilations, strict=True))

    def _idle(self, axis: int, size: int | None) -> int:
        """Entries that may follow without room for another place; none where the size is unknown."""
        stride = self.strides[axis]
        return 0 if size is None else stride - 1 - self._span(axis, size) % stride

    def _span(self, axis: int, size: int) -> int:
        return size + self.before[axis] + self.after[axis] - self.reach[axis]


def _missing(size: int | None, stride: int, reach: int) -> int:
    """Zeros that SAME adds in all."""
    if size is None:
        if stride > 1:
            raise RefusalError("auto_pad depends on the size of its input, which is not known; give it a fixed shape")
        return reach - 1
    return max(0, (-(-size // stride) - 1) * stride + reach - size)
