"""The normal equations of a linear layer: all that least squares needs of the rows it reads and of its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """The normal equations of a layer; group g of a grouped layer owns an equal share of the outputs. All float64.

    Attributes:
        moment: Σ x·xᵀ, [groups, k, k].
        cross: Σ y·xᵀ, [groups, rows, k].
        input_sum: Σ x, [groups, k].
        output_sum: Σ y, [groups, rows].
        energy: Σ y², [groups, rows].
        count: samples summed, in each group.
    """

    moment: Float64Array
    cross: Float64Array
    input_sum: Float64Array
    output_sum: Float64Array
    energy: Float64Array
    count: int

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: they do not belong together.
        """
        groups, rows, k = self.cross.shape
        wanted = ((groups, k, k), (groups, k), (groups, rows), (groups, rows))
        if wanted != (self.moment.shape, self.input_sum.shape, self.output_sum.shape, self.energy.shape):
            raise ValueError(f"sums of shape {wanted} belong to products {list(self.cross.shape)}")

    @classmethod
    def of(cls, inputs: Array, outputs: Array) -> Normal:
        """The equations of some rows; products of float32 rows are float32, everything summed later is not.

        Args:
            inputs: x, [groups, n, k].
            outputs: y, [groups, n, rows].

        Raises:
            ValueError: other shapes.
        """
        if inputs.ndim != 3 or outputs.ndim != 3 or inputs.shape[:2] != outputs.shape[:2]:
            raise ValueError(f"rows of shape {list(inputs.shape)} have no outputs {list(outputs.shape)}")
        return cls(
            (inputs.transpose(0, 2, 1) @ inputs).astype(np.float64, copy=False),
            (outputs.transpose(0, 2, 1) @ inputs).astype(np.float64, copy=False),
            inputs.sum(axis=1, dtype=np.float64),
            outputs.sum(axis=1, dtype=np.float64),
            np.einsum("gnr,gnr->gr", outputs, outputs, dtype=np.float64),
            inputs.shape[1],
        )

    @classmethod
    def empty(cls, groups: int, rows: int, k: int) -> Normal:
        """The equations of no rows."""
        sizes = ((groups, k, k), (groups, rows, k), (groups, k), (groups, rows), (groups, rows))
        moment, cross, inputs, outputs, energy = (np.zeros(size) for size in sizes)
        return cls(moment, cross, inputs, outputs, energy, 0)

    def __add__(self, other: Normal) -> Normal:
        """The equations of all rows of both."""
        return Normal(
            self.moment + other.moment,
            self.cross + other.cross,
            self.input_sum + other.input_sum,
            self.output_sum + other.output_sum,
            self.energy + other.energy,
            self.count + other.count,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight: outputs of all groups, and k."""
        groups, rows, k = self.cross.shape
        return groups * rows, k

    def outputs(self, chosen: Array) -> Normal:
        """The equations of some outputs, whose numbers count within a group."""
        return Normal(
            self.moment,
            self.cross[:, chosen],
            self.input_sum,
            self.output_sum[:, chosen],
            self.energy[:, chosen],
            self.count,
        )

    def shifted(self, delta: Array) -> Normal:
        """The equations of outputs y + delta.

        Args:
            delta: of each output, [outputs of all groups].
        """
        more = np.asarray(delta, np.float64).reshape(self.energy.shape)
        return Normal(
            self.moment,
            self.cross + more[:, :, np.newaxis] * self.input_sum[:, np.newaxis],
            self.input_sum,
            self.output_sum + self.count * more,
            self.energy + more * (2 * self.output_sum + self.count * more),
            self.count,
        )

    def groups(self, chosen: Array | slice) -> Normal:
        """The equations of some groups."""
        return Normal(
            self.moment[chosen],
            self.cross[chosen],
            self.input_sum[chosen],
            self.output_sum[chosen],
            self.energy[chosen],
            self.count,
        )
