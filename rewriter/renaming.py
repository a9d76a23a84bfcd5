"""Short names for what is inside a model: a file carries each name once more for each node that reads it."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, field
from functools import partial

import onnx
from google.protobuf.message import Message

_FIRST = string.ascii_letters
_OTHERS = string.ascii_letters + string.digits


def shorten_names(proto: onnx.ModelProto) -> int:
    """Give tensors the shortest names there are, those that are named most often first; nodes need none.

    Inputs and outputs of the model keep theirs. Every other tensor gets a name that nothing else in the model has, so
    what a branch or the body of a loop takes from outside stays what it was. Twice is the same as once.

    Args:
        proto: the model, changed in place; the names inside local functions, and the function's own, stay.

    Returns:
        Places where a name was changed or dropped; none in a model with training information, which names weights.
    """
    if proto.training_info:
        return 0
    found = _Names()
    found.visit(proto.graph, {})
    kept = {each.name for each in [*proto.graph.input, *proto.graph.output]}
    given, changed = found.give(kept), 0
    for place in found.places:
        if given[place.tensor] != place.old:
            place.write(given[place.tensor])
            changed += 1
    return changed + _forget_names(proto.graph)


def short_names(taken: set[str]) -> Iterator[str]:
    """Names that are not taken, the shortest first."""
    for length in itertools.count():
        for letters in itertools.product(_FIRST, *[_OTHERS] * length):
            if (name := "".join(letters)) not in taken:
                yield name


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a message names a tensor.

    Attributes:
        tensor: its number.
        old: its name so far.
        write: puts another there.
    """

    tensor: int
    old: str
    write: Callable[[str], None]


@dataclass(slots=True)
class _Names:
    """All tensors of a model, and where they are named.

    Attributes:
        tensors: their names, by number, in order of definition; those of the main graph come first.
        outermost: how many of them are of the main graph.
        places: where tensors are named.
        foreign: names of what nothing in the model defines.
    """

    tensors: list[str] = field(default_factory=list)
    outermost: int | None = None
    places: list[_Place] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)

    def visit(self, graph: onnx.GraphProto, outer: Mapping[str, int]) -> None:
        """Note all names in a graph and in those inside it."""
        own: dict[str, int] = {}
        for name in filter(None, _defined(graph)):
            if name not in own:
                own[name] = len(self.tensors)
                self.tensors.append(name)
        if self.outermost is None:
            self.outermost = len(self.tensors)
        scope = {**outer, **own}
        for value in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
            self._note(value, "name", scope)
        for sparse in graph.sparse_initializer:
            self._note(sparse.values, "name", scope)
        for annotation in graph.quantization_annotation:
            self._note(annotation, "tensor_name", scope)
            for entry in annotation.quant_parameter_tensor_names:
                self._note(entry, "value", scope)
        for node in graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    self._add(name, scope, partial(_put, names, index))
            for inner in graphs_of(node):
                self.visit(inner, scope)

    def give(self, kept: set[str]) -> list[str]:
        """The new name of each tensor, by number."""
        counts = Counter(place.tensor for place in self.places)
        free, given = short_names(kept | self.foreign), list(self.tensors)
        for tensor in sorted(range(len(given)), key=lambda each: (-counts[each], each)):
            if tensor >= (self.outermost or 0) or given[tensor] not in kept:
                given[tensor] = next(free)
        return given

    def _note(self, message: Message, attribute: str, scope: Mapping[str, int]) -> None:
        self._add(getattr(message, attribute), scope, partial(setattr, message, attribute))

    def _add(self, name: str, scope: Mapping[str, int], write: Callable[[str], None]) -> None:
        if name in scope:
            self.places.append(_Place(scope[name], name, write))
        elif name:
            self.foreign.add(name)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: branches, bodies of loops."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (each.name for each in [*graph.input, *graph.initializer])
    yield from (each.values.name for each in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output)


def _put(names: MutableSequence[str], index: int, name: str) -> None:
    names[index] = name


def _forget_names(graph: onnx.GraphProto) -> int:
    """Nodes need no names; a graph inside a node must have one."""
    changed = 0
    for node in graph.node:
        changed += bool(node.name)
        node.ClearField("name")
        for inner in graphs_of(node):
            changed += inner.name != "g"
            inner.name = "g"
            changed += _forget_names(inner)
    return changed
