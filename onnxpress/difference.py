"""Where two graphs differ: places between tensors that both have, the same kind of change together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import onnx
from onnx import numpy_helper

from onnxpress.passes.report import Report
from onnxpress.rewriter.model import DEFAULT_DOMAINS
from onnxpress.rewriter.skeleton import lift

SMALL = 8
"""Values of a constant up to which it is no weight, but says how a node works, as axes or limits do."""


@dataclass(frozen=True, slots=True)
class Step:
    """A node that works on activations.

    Attributes:
        name: of the node; that of its first output where it has none.
        op: its operator, with the domain where that is no standard one.
        weights: constants of more than a few values that it reads, the largest first: `float 64×3×7×7`; of one that is
            computed at load the largest part and the operator: `uint8 9408, DequantizeLinear`.
        reads: activations, those that its subgraphs read included.
        writes: activations.
        content: all that tells it from another, but for the values of large weights.
    """

    name: str
    op: str
    weights: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    content: str


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes before, and those that stand in their place after.

    Attributes:
        before: numbers of nodes in the graph before, ascending.
        after: the same in the graph after.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two graphs.

    Attributes:
        before: nodes of the first graph, in order.
        after: nodes of the second.
        places: that differ, in order.
        kinds: numbers of places of the same kind, those that cover most nodes first.
    """

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    places: tuple[Place, ...]
    kinds: tuple[tuple[int, ...], ...]


def compare(before: str | Path, after: str | Path, *, sites: Collection[str] = ()) -> Difference:
    """Compare two model files; no large weight is read.

    Args:
        before: the one.
        after: the other, made of it: what is the same has kept the names of its tensors.
        sites: nodes whose weights are known to have changed.

    Raises:
        ModelError: a file cannot be read.
    """
    first, second = (steps(lift(Path(path)).proto.graph) for path in (before, after))
    found = [each for each in _places(first, second) if not _same(each, first, second, frozenset(sites))]
    kinds: dict[object, list[int]] = {}
    for number, place in enumerate(found):
        kinds.setdefault((_form(place.before, first), _form(place.after, second)), []).append(number)

    def covered(numbers: Sequence[int]) -> tuple[int, int]:
        return -sum(len(found[k].before) + len(found[k].after) for k in numbers), numbers[0]

    return Difference(first, second, tuple(found), tuple(map(tuple, sorted(kinds.values(), key=covered))))


def between(before: str | Path, after: str | Path, reports: Iterable[Report]) -> Difference:
    """Compare the input with what passes made of it: what a report calls changed has changed.

    Raises:
        ModelError: a file cannot be read.
    """
    return compare(before, after, sites={change.site for report in reports for change in report.changes})


def steps(graph: onnx.GraphProto) -> tuple[Step, ...]:
    """The nodes that work on activations; those that only make weights out of constants belong to their readers."""
    fixed: dict[str, _Weight] = {each.name: _stored(each) for each in graph.initializer}
    found = []
    for node in graph.node:
        reads = [*filter(None, node.input), *_captured(node)]
        if all(name in fixed for name in reads) and not node.op_type.startswith("Random"):
            made = _made(node, [fixed[name] for name in reads])
            fixed |= dict.fromkeys(filter(None, node.output), made)
        else:
            found.append(_step(node, dict.fromkeys(reads), fixed))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant: how it is written, and how many values it has."""

    text: str
    entries: int
    content: str


def _stored(tensor: onnx.TensorProto) -> _Weight:
    entries = 1
    for size in tensor.dims:
        entries *= size
    name = onnx.TensorProto.DataType.Name(tensor.data_type).lower() if tensor.data_type else "undefined"
    text = f"{name} {'×'.join(map(str, tensor.dims)) or 'scalar'}"
    return _Weight(text, entries, text if tensor.external_data else f"{text} {_values(tensor)}")


def _values(tensor: onnx.TensorProto) -> str:
    """The values of a small tensor, whatever it is called."""
    content: bytes = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
    return sha256(content).hexdigest()


def _made(node: onnx.NodeProto, parts: Sequence[_Weight]) -> _Weight:
    """A weight that is computed out of constants."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and not parts:
            return _stored(attribute.t)
    largest = max(parts, key=lambda each: each.entries, default=_Weight("", 0, ""))
    text = f"{largest.text.partition(',')[0]}, {node.op_type}" if largest.text else node.op_type
    return _Weight(text, largest.entries, f"{node.op_type} of {'; '.join(each.content for each in parts)}")


def _step(node: onnx.NodeProto, reads: Iterable[str], fixed: Mapping[str, _Weight]) -> Step:
    reads = list(reads)
    held = sorted((fixed[name] for name in reads if name in fixed), key=lambda each: -each.entries)
    domain = "" if node.domain in DEFAULT_DOMAINS else f"{node.domain}."
    writes = tuple(filter(None, node.output))
    moving = tuple(name for name in reads if name not in fixed)
    attributes = sorted(map(_attribute, node.attribute))
    content = repr((domain, node.op_type, attributes, moving, writes, sorted(each.content for each in held)))
    name = node.name or (writes[0] if writes else node.op_type)
    weights = tuple(each.text for each in held if each.entries > SMALL)
    return Step(name, f"{domain}{node.op_type}", weights, moving, writes, content)


def _attribute(attribute: onnx.AttributeProto) -> str:
    """An attribute as text; of a graph what its nodes are, for weights in it are told by their place in a file."""
    if attribute.type == onnx.AttributeProto.GRAPH:
        return f"{attribute.name}: {[(node.op_type, list(node.output)) for node in attribute.g.node]}"
    content: bytes = attribute.SerializeToString(deterministic=True)
    return content.hex()


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """What the subgraphs of a node read from outside."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            graph = attribute.g
            own = {each.name for each in [*graph.input, *graph.initializer]}
            own.update(name for inner in graph.node for name in inner.output)
            for inner in graph.node:
                yield from (name for name in [*inner.input, *_captured(inner)] if name and name not in own)
            yield from (each.name for each in graph.output if each.name not in own)


@dataclass(slots=True)
class _Sets:
    """Numbers united into sets."""

    parents: list[int] = field(default_factory=list)

    def find(self, number: int) -> int:
        """The one that stands for the set."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def unite(self, first: int, second: int) -> None:
        """Make one set of two; the smaller number stands for it."""
        low, high = sorted((self.find(first), self.find(second)))
        self.parents[high] = low


def _places(before: Sequence[Step], after: Sequence[Step]) -> list[Place]:
    """Both graphs cut at tensors that both have: nodes joined by others are one place, as two that write one are."""
    makers = [{name: number for number, step in enumerate(each) for name in step.writes} for each in (before, after)]
    common = makers[0].keys() & makers[1].keys()
    sets = _Sets(list(range(len(before) + len(after))))
    for name in common:
        sets.unite(makers[0][name], len(before) + makers[1][name])
    for graph, made, start in ((before, makers[0], 0), (after, makers[1], len(before))):
        for number, step in enumerate(graph):
            for name in step.reads:
                if name in made and name not in common:
                    sets.unite(start + number, start + made[name])
    members: dict[int, list[int]] = {}
    for number in range(len(before) + len(after)):
        members.setdefault(sets.find(number), []).append(number)
    return [
        Place(tuple(k for k in each if k < len(before)), tuple(k - len(before) for k in each if k >= len(before)))
        for each in members.values()
    ]


def _same(place: Place, before: Sequence[Step], after: Sequence[Step], sites: frozenset[str]) -> bool:
    first, second = [before[k] for k in place.before], [after[k] for k in place.after]
    if any(each.name in sites for each in first):
        return False
    return sorted(each.content for each in first) == sorted(each.content for each in second)


def _form(numbers: Sequence[int], graph: Sequence[Step]) -> object:
    """What nodes are and how they hang together, without names and sizes: equal for the same kind of place."""
    makers = {name: k for k, number in enumerate(numbers) for name in graph[number].writes}
    return tuple(
        (
            graph[number].op,
            tuple(makers.get(name, -1) for name in graph[number].reads),
            tuple(_coarse(each) for each in graph[number].weights[:1]),
        )
        for number in numbers
    )


def _coarse(weight: str) -> str:
    """A weight without its sizes: `uint8, DecodeHuffman`."""
    head, _, tail = weight.partition(", ")
    return f"{head.partition(' ')[0]} {tail}"
