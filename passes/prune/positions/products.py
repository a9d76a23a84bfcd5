"""A convolution that sees few positions of its kernel, written as smaller dense products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array, Mask
from onnxpress.passes.kernels.lattices import Lattice, bounding, cover
from onnxpress.passes.prune.positions.windows import Spatial, Window
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import add_node, detach
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Use

OPSET = 11
"""From which Slice and Pad take what they need as inputs."""

_PARTS = 3
"""Convolutions of which a sum may consist: each one more reads and writes the whole output again."""

_END = np.iinfo(np.int64).max


class Product(ABC):
    """One way to write a Conv whose weight is zero at some positions of its kernel."""

    @property
    @abstractmethod
    def single(self) -> bool:
        """Whether it is one convolution on the input as it is, but for its edges."""

    @abstractmethod
    def describe(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def weights(self, weight: Array) -> list[Array]:
        """The weights it needs, from that of the Conv [out, in/groups, *kernel]."""

    @abstractmethod
    def write(self, model: Model, use: Use, weights: Sequence[gs.Constant], spatial: Spatial) -> None:
        """Put it in the place of a node.

        Args:
            model: takes the new nodes.
            use: the node.
            weights: constants of what `weights` gave.
            spatial: sizes of the input.

        Raises:
            RefusalError: this cannot be had here; nothing was changed.
        """


@dataclass(frozen=True, slots=True)
class Sum(Product):
    """One convolution for each lattice of positions; their outputs are added up.

    Attributes:
        parts: lattices without common positions.
    """

    parts: tuple[Lattice, ...]

    @property
    def single(self) -> bool:
        """Whether there is only one part."""
        return len(self.parts) == 1

    def describe(self) -> str:
        """Sides of the kernels: `3x1 + 1x2 Conv`."""
        return " + ".join(_sides(part) for part in self.parts) + " Conv"

    def weights(self, weight: Array) -> list[Array]:
        """A part of the kernel for each lattice."""
        return [np.ascontiguousarray(weight[_at(..., *part.index)]) for part in self.parts]

    def write(self, model: Model, use: Use, weights: Sequence[gs.Constant], spatial: Spatial) -> None:
        """The convolutions, the first with the bias, and Add behind them."""
        node = use.node
        if len(self.parts) > 1 and node.op != "Conv":
            raise RefusalError(f"{node.op} has an activation inside, so it is no sum")
        whole = Window.of(node, use.node.inputs[use.index].shape[2:], spatial)
        windows = [whole.narrowed(part, spatial) for part in self.parts]
        if any(min(window.before + window.after) < 0 for window in windows):
            _need_opset(model)
        hint, outputs = _hint(node), list(node.outputs)
        data, rest, attrs, op, domain = node.inputs[0], list(node.inputs[2:]), dict(node.attrs), node.op, node.domain
        detach(node)
        total: gs.Tensor | None = None
        for window, weight in zip(windows, weights, strict=True):
            seen, fitted = _fitted(model, use.graph, data, window, spatial, hint)
            inputs, rest = [seen, weight, *rest], []
            last = outputs if len(windows) == 1 else None
            made = _conv(
                model, use.graph, inputs, _attributes(attrs, fitted), hint=hint, outputs=last, like=(op, domain)
            )
            if total is not None:
                ends = outputs if weight is weights[-1] else None
                made = add_node(model, use.graph, "Add", [total, made], hint=f"{hint}_sum", outputs=ends)
            total = made


@dataclass(frozen=True, slots=True, eq=False)
class Gathered(Product):
    """What the positions see, shifted copies of the input one after another, times a matrix: a 1x1 convolution.

    Attributes:
        kept: [channels, *kernel], at least one True.
    """

    kept: Mask

    @property
    def single(self) -> bool:
        """Never: the input is copied."""
        return False

    def describe(self) -> str:
        """How many columns there are."""
        return f"{np.count_nonzero(self.kept)} shifted channels into a 1x1 Conv"

    def weights(self, weight: Array) -> list[Array]:
        """The kept columns, [out, columns, 1, ..], position by position."""
        ones = (1,) * (weight.ndim - 2)
        columns = [weight[_at(slice(None), self._channels(at), *at)] for at in self._positions()]
        return [np.ascontiguousarray(np.concatenate(columns, axis=1).reshape(len(weight), -1, *ones))]

    def write(self, model: Model, use: Use, weights: Sequence[gs.Constant], spatial: Spatial) -> None:
        """Pad, a Slice for each position (and a Gather where it drops channels), Concat, Conv."""
        node = use.node
        if int(node.attrs.get("group", 1)) != 1:
            raise RefusalError("shifted channels of several groups would have to be sorted anew")
        _need_opset(model)
        window = Window.of(node, self.kept.shape[1:], spatial)
        hint, outputs, attrs = _hint(node), list(node.outputs), dict(node.attrs)
        data, rest, like = node.inputs[0], list(node.inputs[2:]), (node.op, node.domain)
        detach(node)
        if any(window.before + window.after):
            data = _pad(model, use.graph, data, window.before, window.after, hint)
        seen = [self._shifted(model, use.graph, data, window, at, hint) for at in self._positions()]
        joined = (
            add_node(model, use.graph, "Concat", seen, hint=f"{hint}_columns", attrs={"axis": 1})
            if seen[1:]
            else seen[0]
        )
        ones, zeros = (1,) * len(window.kernel), (0,) * len(window.kernel)
        plain = _attributes(attrs, Window(ones, ones, ones, zeros, zeros))
        _conv(model, use.graph, [joined, weights[0], *rest], plain, hint=hint, outputs=outputs, like=like)

    def _positions(self) -> list[tuple[int, ...]]:
        used = np.argwhere(self.kept.any(axis=0))
        return [tuple(int(each) for each in at) for at in used]

    def _channels(self, at: tuple[int, ...]) -> Array:
        return np.flatnonzero(self.kept[_at(slice(None), *at)])

    def _shifted(
        self, model: Model, graph: gs.Graph, data: gs.Tensor, window: Window, at: tuple[int, ...], hint: str
    ) -> gs.Tensor:
        """What one position sees at all places, [batch, channels kept there, *places]."""
        channels = self._channels(at)
        if len(channels) < len(self.kept):
            index = model.add_weight(f"{hint}_channels", channels.astype(np.int64))
            data = add_node(model, graph, "Gather", [data, index], hint=f"{hint}_part", attrs={"axis": 1})
        starts = [place * dilation for place, dilation in zip(at, window.dilations, strict=True)]
        behind = [reach - 1 - start for reach, start in zip(window.reach, starts, strict=True)]
        if not any(starts) and not any(behind) and set(window.strides) == {1}:
            return data
        ends = [-each if each else _END for each in behind]
        return _slice(model, graph, data, (starts, ends, window.strides), hint)


def products_for(kept: Mask, *, groups: int = 1) -> list[Product]:
    """The ways to write a convolution of which only some positions count, those that may be fastest first.

    Args:
        kept: [channels, *kernel], what is not zero, over all groups.
        groups: of the convolution.

    Returns:
        None at all where every position counts, or where nothing smaller holds those that do.
    """
    union: Mask = np.asarray(kept.any(axis=0))
    found: list[Product] = []
    box = bounding(union)
    if box.size < union.size:
        found.append(Sum((box,)))
    parts = cover(union, most=_PARTS) if box.size > np.count_nonzero(union) else None
    if parts is not None:
        found.append(Sum(parts))
    if groups == 1 and np.count_nonzero(kept) < len(kept) * box.size:
        found.append(Gathered(kept))
    return found


def _fitted(
    model: Model, graph: gs.Graph, data: gs.Tensor, window: Window, spatial: Spatial, hint: str
) -> tuple[gs.Tensor, Window]:
    """The input without what the window leaves out, and the window on it, whose pads are not negative.

    Where the cut might leave nothing of a small input, zeros on the other side are added before.
    """
    before, after = np.array(window.before), np.array(window.after)
    early = [_runs_dry(*each) for each in zip(window.before, window.after, window.reach, spatial, strict=True)]
    head, tail = np.where(early, np.maximum(before, 0), 0), np.where(early, np.maximum(after, 0), 0)
    if head.any() or tail.any():
        data = _pad(model, graph, data, head.tolist(), tail.tolist(), hint)
    starts, ends = np.maximum(-before, 0), np.maximum(-after, 0)
    if starts.any() or ends.any():
        bounds = (starts.tolist(), [-each if each else _END for each in ends.tolist()], (1,) * len(starts))
        data = _slice(model, graph, data, bounds, hint)
    left = (np.maximum(before - head, 0), np.maximum(after - tail, 0))
    return data, Window(window.kernel, window.strides, window.dilations, *(tuple(each.tolist()) for each in left))


def _runs_dry(before: int, after: int, reach: int, size: int | None) -> bool:
    """Whether cutting off one side may leave nothing, although there are places thanks to the pad of the other."""
    cut, pad = max(0, -before) + max(0, -after), max(0, before, after)
    if not cut or not pad:
        return False
    return pad >= reach if size is None else size - cut < 1


def _slice(
    model: Model,
    graph: gs.Graph,
    data: gs.Tensor,
    bounds: tuple[Sequence[int], Sequence[int], Sequence[int]],
    hint: str,
) -> gs.Tensor:
    """Starts, ends and steps along the spatial axes; axes that stay whole are left out."""
    chosen = [axis for axis, each in enumerate(zip(*bounds, strict=True)) if each != (0, _END, 1)]
    lists = [[each[axis] for axis in chosen] for each in bounds]
    lists.insert(2, [axis + 2 for axis in chosen])
    inputs = [model.add_weight(f"{hint}_bound", np.array(each, np.int64)) for each in lists]
    return add_node(model, graph, "Slice", [data, *inputs], hint=f"{hint}_window")


def _pad(
    model: Model, graph: gs.Graph, data: gs.Tensor, before: Sequence[int], after: Sequence[int], hint: str
) -> gs.Tensor:
    pads = model.add_weight(f"{hint}_pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
    return add_node(model, graph, "Pad", [data, pads], hint=f"{hint}_padded")


def _conv(
    model: Model,
    graph: gs.Graph,
    inputs: Sequence[gs.Tensor],
    attrs: dict[str, object],
    *,
    hint: str,
    outputs: Sequence[gs.Tensor] | None,
    like: tuple[str, str | None],
) -> gs.Tensor:
    op, domain = like
    return add_node(model, graph, op, inputs, hint=hint, attrs=attrs, outputs=outputs, domain=domain)


def _attributes(attrs: dict[str, object], window: Window) -> dict[str, object]:
    """Those of a node with another window."""
    others = {key: value for key, value in attrs.items() if key not in ("auto_pad", "pads")}
    return others | {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "pads": [*window.before, *window.after],
    }


def _sides(part: Lattice) -> str:
    text = "x".join(map(str, part.count)) if len(part.count) > 1 else f"{part.count[0]}-wide"
    spread = any(step > 1 and count > 1 for step, count in zip(part.step, part.count, strict=True))
    return f"dilated {text}" if spread else text


def _hint(node: gs.Node) -> str:
    return str(node.name or f"{node.op}_{node.outputs[0].name}")


def _at(*index: object) -> Any:
    """An index whose types NumPy's annotations do not know together."""
    return index


def _need_opset(model: Model) -> None:
    if model.opset < OPSET:
        raise RefusalError(f"opset {model.opset} has no Slice that takes its bounds as inputs: export with {OPSET}")
