"""Tensors with the linear layers that read them: where factors of channels can move between activation and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.views import LastAxis, Patches
from onnxpress.passes.balance.factors import Channels, scale_constant
from onnxpress.passes.inputs import Reading, activation_of, check_sole, reading_of
from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.quantize.storage import check_float32
from onnxpress.passes.report import Report
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import Array

_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A weight, all of whose users read the same tensor in the same way.

    Attributes:
        site: the weight.
        reading: what its users read.
    """

    site: Site
    reading: Reading

    @property
    def channels(self) -> Channels:
        """Which channel of the tensor each column of the weight's matrix multiplies, [groups, in·kernel]."""
        groups, taps = self._groups, int(np.prod(self._kernel))
        per_group = self._inputs
        return np.repeat(np.arange(groups * per_group).reshape(groups, per_group), taps, axis=1)

    @property
    def count(self) -> int:
        """Number of channels of the tensor."""
        return self._groups * self._inputs

    def matrices(self, array: Array | None = None) -> Floats:
        """The weight, or another array in its layout, as [groups, out/groups, in·kernel], float32."""
        rows = Layout.of(self.site).to_rows(self.site.array() if array is None else array)
        return np.ascontiguousarray(rows.reshape(self._groups, rows.shape[0] // self._groups, -1), np.float32)

    def spread(self, scale: Array) -> Floats:
        """A factor for each channel, [channels], such that it broadcasts against the weight."""
        axes, shape = self.site.axes, self.site.shape
        if self._groups == 1:
            wide = scale.reshape([-1 if axis == "in" else 1 for axis in axes])
        else:  # [out, in/groups, *kernel]: the outputs of a group multiply its own inputs
            rows = np.repeat(scale.reshape(self._groups, -1), shape[0] // self._groups, axis=0)
            wide = rows.reshape(shape[0], -1, *[1] * (len(shape) - 2))
        return np.asarray(wide, np.float32)

    @property
    def _groups(self) -> int:
        return self.reading.view.groups if isinstance(self.reading.view, Patches) else 1

    @property
    def _inputs(self) -> int:
        return self.site.shape[self.site.axis("in")]

    @property
    def _kernel(self) -> tuple[int, ...]:
        return tuple(size for size, axis in zip(self.site.shape, self.site.axes, strict=True) if axis == "kernel")


@dataclass(frozen=True, slots=True, eq=False)
class Fan:
    """A tensor and layers that read it along the same axis of channels.

    Attributes:
        tensor: of the main graph.
        axis: of the channels.
        readers: the layers; others may read the tensor, too.
    """

    tensor: gs.Tensor
    axis: int
    readers: tuple[Reader, ...]

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.readers[0].count

    @property
    def nodes(self) -> list[gs.Node]:
        """The nodes of the layers."""
        return [use.node for reader in self.readers for use in reader.site.uses]

    @property
    def channels(self) -> Channels:
        """The numbers of the channels, such that they broadcast against the tensor."""
        spatial = self.readers[0].site.axes.count("kernel")
        return np.arange(self.count).reshape(-1, *[1] * spatial)

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.tensor.name)

    @property
    def nbytes(self) -> int:
        """Stored bytes of the weights."""
        return sum(reader.site.nbytes for reader in self.readers)

    def scale_weights(self, model: Model, scale: Array) -> None:
        """Multiply what the layers have for each channel by its factor, [channels]."""
        for reader in self.readers:
            scale_constant(model, reader.site.weight, reader.spread(scale))


def find_fans(model: Model, sites: Sequence[Site], report: Report) -> list[Fan]:
    """Group layers by the tensor that they read; those that cannot take factors are skipped.

    Args:
        model: its main graph is looked at.
        sites: whose layers are grouped.
        report: gets the skips.
    """
    found: dict[tuple[int, int], tuple[gs.Tensor, list[Reader]]] = {}
    for site in sites:
        try:
            reader = _reader(model, site)
        except RefusalError as refusal:
            report.skip(site.name, str(refusal))
            continue
        tensor = activation_of(site.uses[0])
        axis = 1 if isinstance(reader.reading.view, Patches) else -1
        found.setdefault((id(tensor), axis), (tensor, []))[1].append(reader)
    fans = (Fan(tensor, axis, tuple(readers)) for (_, axis), (tensor, readers) in found.items())
    return [part for fan in fans for part in _alike(fan)]


def _reader(model: Model, site: Site) -> Reader:
    """A site as reader.

    Raises:
        RefusalError: says why its input channels cannot be scaled.
    """
    for use in site.uses:
        if use.node.op not in _LAYERS or (use.node.domain or "") not in DEFAULT_DOMAINS:
            raise RefusalError(f"{use.node.op} does not multiply the channels of an activation")
        if use.index != 1:
            raise RefusalError("its weight is on the left")
        if len(use.axes) != use.axes.count("kernel") + 2:
            raise RefusalError("its weight is a stack of matrices")
    check_float32(site)
    check_sole(model, site)
    first, *others = [reading_of(model, use) for use in site.uses]
    if not isinstance(first.view, LastAxis | Patches):
        raise RefusalError("it reads its activation transposed")
    for use, reading in zip(site.uses[1:], others, strict=True):
        if reading != first or use.axes != site.axes:
            raise RefusalError(
                f"its weight is shared with '{use.node.name}', which reads another tensor or reads it otherwise"
            )
    return Reader(site, first)


def _alike(fan: Fan) -> list[Fan]:
    """A fan, parted by the number of channels (a broadcast axis) and of spatial axes that its layers see."""
    kinds: dict[tuple[int, int], list[Reader]] = {}
    for reader in fan.readers:
        kinds.setdefault((reader.count, len(reader.site.axes)), []).append(reader)
    return [Fan(fan.tensor, fan.axis, tuple(readers)) for readers in kinds.values()]
