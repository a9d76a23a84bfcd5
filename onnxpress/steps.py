"""The nodes of a graph that work on activations, with the weights they read, of which no large one is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import onnx
from onnx import numpy_helper

from onnxpress.rewriter.model import DEFAULT_DOMAINS

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
        content: all that tells it from another, but for names and the values of large weights.
    """

    name: str
    op: str
    weights: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    content: str


def steps(graph: onnx.GraphProto) -> tuple[Step, ...]:
    """The nodes that work on activations; those that only make weights out of constants belong to their readers."""
    fixed: dict[str, _Weight] = {each.name: _stored(each) for each in graph.initializer}
    fixed |= {each.values.name: _sparse(each) for each in graph.sparse_initializer}
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
    name = onnx.TensorProto.DataType.Name(tensor.data_type).lower() if tensor.data_type else "undefined"
    text = f"{name} {'×'.join(map(str, tensor.dims)) or 'scalar'}"
    return _Weight(text, math.prod(tensor.dims), text if tensor.external_data else f"{text} {_values(tensor)}")


def _sparse(tensor: onnx.SparseTensorProto) -> _Weight:
    """A constant of which only what is not zero is stored, and where that stands."""
    values, places = _stored(tensor.values), _stored(tensor.indices)
    text = f"{values.text.partition(' ')[0]} {'×'.join(map(str, tensor.dims))}, sparse"
    return _Weight(text, math.prod(tensor.dims), f"{text} {values.content} at {places.content}")


def _values(tensor: onnx.TensorProto) -> str:
    """The values of a small tensor, whatever it is called."""
    if tensor.data_type == onnx.TensorProto.STRING:  # an array of texts holds but where they lie in memory
        content = repr(list(tensor.string_data)).encode()
    else:
        content = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
    return sha256(content).hexdigest()


def _made(node: onnx.NodeProto, parts: Sequence[_Weight]) -> _Weight:
    """A weight that is computed out of constants."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and not parts:
            return _stored(attribute.t)
        if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and not parts:
            return _sparse(attribute.sparse_tensor)
    largest = max(parts, key=lambda each: each.entries, default=_Weight("", 0, ""))
    text = f"{largest.text.partition(',')[0]}, {node.op_type}" if largest.text else node.op_type
    how = f"{node.domain} {node.op_type} {sorted(map(_attribute, node.attribute))}"
    return _Weight(text, largest.entries, f"{how} of {'; '.join(each.content for each in parts)}")


def _step(node: onnx.NodeProto, reads: Iterable[str], fixed: Mapping[str, _Weight]) -> Step:
    reads = list(reads)
    held = sorted((fixed[name] for name in reads if name in fixed), key=lambda each: -each.entries)
    domain = "" if node.domain in DEFAULT_DOMAINS else f"{node.domain}."
    writes = tuple(filter(None, node.output))
    moving = tuple(name for name in reads if name not in fixed)
    attributes = sorted(map(_attribute, node.attribute))
    content = repr((domain, node.op_type, attributes, sorted(each.content for each in held)))
    name = node.name or (writes[0] if writes else node.op_type)
    weights = tuple(each.text for each in held if each.entries > SMALL)
    return Step(name, f"{domain}{node.op_type}", weights, moving, writes, content)


def _attribute(attribute: onnx.AttributeProto) -> str:
    """An attribute as text; of a graph what its nodes are, for weights in it are told by their place in a file."""
    if attribute.type == onnx.AttributeProto.GRAPH:
        return f"{attribute.name}: {[node.op_type for node in attribute.g.node]}"
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
