"""Where a model can be compressed: constant floating-point weights, each seen through one canonical view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.model import Model
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Array, read, values_of

Axis = Literal["batch", "out", "in", "kernel"]
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One input of one node that reads the weight."""

    graph: gs.Graph
    node: gs.Node
    index: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A weight and all nodes that use it; a weight shared by several nodes is one site.

    Attributes:
        name: unique in the model: that of the first node, with the weight's where a node has several weights.
        weight: the constant.
        uses: who reads it, in graph order.
        axes: what each axis of the stored array means to the first use: `out`, `in`, `kernel`, or `batch` for
            independent matrices (the directions of an LSTM). Grouped convolutions count `in` within a group.
    """

    name: str
    weight: gs.Constant
    uses: tuple[Use, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Meaning of the stored axes to the first use."""
        return self.uses[0].axes

    @property
    def node(self) -> gs.Node:
        """The first node that uses the weight."""
        return self.uses[0].node

    @property
    def op(self) -> str:
        """Operator of that node."""
        return str(self.node.op)

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape."""
        return tuple(self.weight.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return int(values_of(self.weight).nbytes)

    @property
    def groups(self) -> int:
        """Groups of a convolution, else 1."""
        return int(self.node.attrs.get("group", 1)) if "Conv" in self.op else 1

    def array(self) -> Array:
        """The weight as stored, read-only, mapped from disk where it lies there."""
        return read(self.weight)

    def axis(self, meaning: Axis) -> int:
        """Index of the only axis with that meaning.

        Raises:
            ValueError: there is none.
        """
        return self.axes.index(meaning)


def find_sites(model: Model) -> list[Site]:
    """All sites, in graph order; weights that a caller may override at run time are none."""
    found: dict[int, list[Use]] = {}
    weights: dict[int, gs.Constant] = {}
    overridable = {id(t) for t in model.graph.inputs}
    for graph in graphs(model.graph):
        for node in graph.nodes:
            for index, axes in _weights_of(node):
                weight = node.inputs[index]
                if id(weight) in overridable:
                    continue
                weights[id(weight)] = weight
                found.setdefault(id(weight), []).append(Use(graph, node, index, axes))
    taken: set[str] = set()
    return [_site(weights[key], tuple(uses), taken) for key, uses in found.items()]


def select(sites: Sequence[Site], *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> list[Site]:
    """Sites whose own, weight's or operator's name matches a glob of `include` and none of `exclude`."""
    return [s for s in sites if _matches(s, include) and not _matches(s, exclude)]


def _matches(site: Site, globs: Sequence[str]) -> bool:
    names = (site.name, site.weight.name, site.op)
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def _site(weight: gs.Constant, uses: tuple[Use, ...], taken: set[str]) -> Site:
    node = uses[0].node
    several = sum(1 for _ in _weights_of(node)) > 1
    name = node.name or weight.name
    if several or name in taken:
        name = f"{name}:{weight.name}"
    taken.add(name)
    return Site(name, weight, uses)


def _weights_of(node: gs.Node) -> Iterator[tuple[int, tuple[Axis, ...]]]:
    """Inputs of a node that are weights, with the meaning of their axes."""
    rule = _RULES.get((node.domain or "", node.op)) or _RULES.get(
        ("", node.op) if node.domain == "ai.onnx" else ("", "")
    )
    if rule is None:
        return
    for index, axes_of in rule.items():
        weight = node.inputs[index] if index < len(node.inputs) else None
        if not isinstance(weight, gs.Constant) or values_of(weight).dtype.name not in FLOATS:
            continue
        axes = axes_of(node, len(weight.shape))
        if axes is not None:
            yield index, axes


def _many(axis: Axis, count: int) -> tuple[Axis, ...]:
    return (axis,) * count


_AxesOf = Callable[[gs.Node, int], tuple[Axis, ...] | None]


def _conv(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    return ("out", "in", *_many("kernel", rank - 2)) if rank >= 3 else None


def _conv_transpose(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    return ("in", "out", *_many("kernel", rank - 2)) if rank >= 3 else None


def _right(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    if rank < 2:
        return None
    pair: tuple[Axis, Axis] = ("out", "in") if node.attrs.get("transB", 0) else ("in", "out")
    return (*_many("batch", rank - 2), *pair)


def _left(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    if rank < 2:
        return None
    pair: tuple[Axis, Axis] = ("in", "out") if node.attrs.get("transA", 0) else ("out", "in")
    return (*_many("batch", rank - 2), *pair)


def _rows(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    """An embedding: the row picked by an index is a one-hot vector times the table."""
    return ("in", "out") if rank == 2 and node.attrs.get("axis", 0) == 0 else None


def _recurrent(node: gs.Node, rank: int) -> tuple[Axis, ...] | None:
    return ("batch", "out", "in") if rank == 3 else None


_RULES: dict[tuple[str, str], dict[int, _AxesOf]] = {
    ("", "Conv"): {1: _conv},
    ("", "ConvTranspose"): {1: _conv_transpose},
    ("", "Gemm"): {1: _right, 0: _left},
    ("", "MatMul"): {1: _right, 0: _left},
    ("", "Gather"): {0: _rows},
    ("", "LSTM"): {1: _recurrent, 2: _recurrent},
    ("", "GRU"): {1: _recurrent, 2: _recurrent},
    ("", "RNN"): {1: _recurrent, 2: _recurrent},
    ("com.microsoft", "FusedConv"): {1: _conv},
    ("com.microsoft", "FusedGemm"): {1: _right},
    ("com.microsoft", "FusedMatMul"): {1: _right},
    ("com.microsoft", "Attention"): {1: _right},
}

OPERATORS = frozenset(op for _, op in _RULES)
"""Names of the operators that have weights."""
