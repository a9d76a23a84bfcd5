"""What makes two units of a group twins: the constants they are computed from, and what lies between those.

Where all nodes between are positively homogeneous, f(c·x) = c·f(x) for c > 0, a unit whose weights and biases are c
times those of another one carries c times its values. Constants that multiply what is a unit's already, kernels of
depthwise convolutions or slopes, must be equal then; they are gains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.pairs import Factors, Pairs, Stage, compare
from onnxpress.passes.kernels.products import Rows
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.couplings import Group, Member
from onnxpress.rewriter.model import DEFAULT_DOMAINS
from onnxpress.rewriter.weights import read

Part: TypeAlias = Literal["source", "gain", "slope"]
"""What a constant is to a unit: it adds up to its values, multiplies them, or only those below zero."""

_MOVES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "DepthToSpace", "SpaceToDepth")
_PARTS = ("Concat", "Split", "Slice", "Gather")
_MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Resize", "Upsample")
_SIGNED = ("Relu", "LeakyRelu", "PRelu", "Abs")
_EXTREMES = ("MaxPool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "ReduceMax", "ReduceMin")
_KEEPS: Mapping[str, Factors] = MappingProxyType(
    {
        **dict.fromkeys(("Identity", "Dropout", "Cast", "Neg", "BatchNormalization", *_MOVES, *_PARTS, *_MEANS), "any"),
        **dict.fromkeys((*_SIGNED, *_EXTREMES), "positive"),
    }
)
"""The c for which operators give c times the result, whatever else they read."""

_SUMS: Mapping[str, Factors] = MappingProxyType(
    {"Add": "any", "Sub": "any", "Sum": "any", "Mean": "any", "Max": "positive", "Min": "positive"}
)
"""The same, where all they read is c times as large."""

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedMatMul")
_SHAPES = ("Shape", "Size")
_STRICT: Sequence[Factors] = ("any", "positive", "one")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """How the units of a group are made.

    Attributes:
        parts: members that are constants other than those that read the units, each with what it is.
        readers: members that read the units, role `in`.
        factors: what a unit may be of its twin.
    """

    parts: tuple[tuple[Member, Part], ...]
    readers: tuple[Member, ...]
    factors: Factors

    def pairs(self) -> Pairs:
        """Compare all units by their constants.

        Raises:
            RefusalError: some are NaN or infinite, or there are none.
        """
        try:
            return compare(self._stages(), factors=self.factors)
        except ValueError as error:
            raise RefusalError(str(error)) from error

    def _stages(self) -> list[Stage]:
        """What units are computed from, in graph order."""
        stages: list[tuple[list[Array], list[Array]]] = []  # what adds up, and what multiplies it then
        for member, part in self.parts:
            rows = slices(read(member.tensor), member)
            if not stages or stages[-1][1]:
                stages.append(([], []))
            if part == "source":
                stages[-1][0].append(rows)
            else:  # above zero the slope is 1
                stages[-1][1].extend([rows, np.ones_like(rows)] if part == "slope" else [rows])
        if not stages:
            raise RefusalError("no weight makes its units, so nothing tells which are alike")
        return [Stage(Rows(sources) if sources else None, Rows(gains) if gains else None) for sources, gains in stages]

    def outgoing(self) -> Rows:
        """What units give to the layers that read them.

        Raises:
            RefusalError: some of it is NaN or infinite.
        """
        try:
            return Rows([slices(read(each.tensor), each) for each in self.readers])
        except ValueError as error:
            raise RefusalError(str(error)) from error


def dissect(group: Group) -> Anatomy:
    """Find out how the units of a group are made, and what reads them.

    Raises:
        RefusalError: what is read of them is not added up by weights, so that a twin could not take over.
    """
    view = _View(group)
    readers = tuple(each for each in _once(group.members) if each.role == "in")
    for node in view.nodes:
        view.check_reader(node)
    if not readers:
        raise RefusalError("no weight reads its units, so none can take over what another one gave")
    found: list[Factors] = [view.factors(node) for node in view.nodes]
    factors = max(found, key=_STRICT.index)
    return Anatomy(tuple(view.parts()), readers, factors)


class _View:
    """A group, seen from its nodes."""

    def __init__(self, group: Group) -> None:
        self._members = _once(group.members)
        self._inside = {id(each.tensor) for each in group.members if each.role == "activation"}
        self._constants = {id(each.tensor) for each in group.members if each.role in ("out", "parameter")}
        self._weights = {id(each.tensor) for each in group.members if each.role == "in"}
        ends = [each.tensor for each in group.members if each.role == "activation"]
        found = {id(node): node for tensor in ends for node in [*tensor.inputs, *tensor.outputs]}
        self.nodes: Sequence[gs.Node] = list(found.values())

    def check_reader(self, node: gs.Node) -> None:
        """Refuse a node that makes something else of the units than a sum by weights.

        Raises:
            RefusalError: names the node.
        """
        makes = any(id(each) in self._inside for each in node.outputs)
        weighs = any(id(each) in self._weights for each in node.inputs)
        if not makes and not weighs and node.op not in _SHAPES:
            raise RefusalError(f"{node.op} '{node.name}' reads its units without weights that a twin could take over")

    def factors(self, node: gs.Node) -> Factors:
        """The c for which a node makes c times the result of a unit that is c times as large."""
        if not any(id(each) in self._inside for each in node.outputs):
            return "any"
        op, inputs = str(node.op), [each for each in node.inputs if each.name]
        if op in _LAYERS:
            return "any" if self._is_weighed(node) else "one"
        if (node.domain or "") not in DEFAULT_DOMAINS:
            return "one"
        if op in _SUMS:
            return _SUMS[op] if all(map(self._belongs, inputs)) else "one"
        if op in ("Mul", "Div"):
            inside = [id(each) in self._inside for each in inputs]
            return "any" if sum(inside) == 1 and (op == "Mul" or inside[0]) else "one"
        if op == "Pad":
            return "any" if _pads_with_zero(node) else "one"
        return _KEEPS.get(op, "one")

    def parts(self) -> Iterator[tuple[Member, Part]]:
        """What each constant is to a unit."""
        for member in self._members:
            if member.role in ("out", "parameter"):
                uses = {self._part(node, member.tensor) for node in member.tensor.outputs}
                yield member, next(iter(uses)) if len(uses) == 1 else "gain"

    def _belongs(self, tensor: gs.Tensor) -> bool:
        return id(tensor) in self._inside or id(tensor) in self._constants

    def _is_weighed(self, node: gs.Node) -> bool:
        """Whether a layer has weights, and does not tell its groups apart in two ways."""
        known = any(id(each) in self._constants for each in node.inputs)
        both = int(node.attrs.get("group", 1)) > 1 and any(id(each) in self._weights for each in node.inputs)
        return known and not both

    def _part(self, node: gs.Node, tensor: gs.Tensor) -> Part:
        """What a constant is to the units that a node makes."""
        if node.op == "PRelu":
            return "slope"
        index = next(number for number, each in enumerate(node.inputs) if each is tensor)
        if node.op in ("Mul", "Div"):
            return "gain"
        if node.op == "BatchNormalization":
            return "gain" if index in (1, 4) else "source"
        if "Conv" in str(node.op) and index == 1 and int(node.attrs.get("group", 1)) > 1:
            return "gain" if id(node.inputs[0]) in self._inside else "source"
        return "source"


def _pads_with_zero(node: gs.Node) -> bool:
    if str(node.attrs.get("mode", "constant")) != "constant":
        return True
    value = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if isinstance(value, gs.Constant):
        return not read(value).any()
    return value is None and not node.attrs.get("value", 0.0)


def _once(members: Sequence[Member]) -> list[Member]:
    """Each axis of each tensor once."""
    found: dict[tuple[int, int], Member] = {}
    for each in members:
        found.setdefault((id(each.tensor), each.axis), each)
    return list(found.values())


def slices(array: Array, member: Member) -> Array:
    """What belongs to each unit, [units, elements]."""
    taken = np.moveaxis(array, member.axis, 0)[member.indices]
    return taken.reshape(len(member.indices), -1)
