"""From messages to the mutable graph.

graphsurgeon's classes are the mutable graph, but its importer and exporter lose a third of what a model may say
(metadata, documentation, overloads, sequence and optional types, sparse attributes, unused or overridable
initializers, 4-bit weights). So reading and writing are ours, and each graph object keeps, as `source`, the message
it came from; `encode` takes from there whatever the object itself cannot express.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import Inline, SparseForm, Values, numpy_dtype

Scope = MutableMapping[str, gs.Tensor]
Attribute = object
"""A Python value, a gs.Constant, a gs.Graph, a gs.Node.AttributeRef, or an AttributeProto that is kept as it came."""

_PLAIN: dict[int, Callable[[onnx.AttributeProto], Attribute]] = {
    onnx.AttributeProto.FLOAT: lambda a: a.f,
    onnx.AttributeProto.INT: lambda a: a.i,
    onnx.AttributeProto.STRING: lambda a: _text(a.s),
    onnx.AttributeProto.FLOATS: lambda a: list(a.floats),
    onnx.AttributeProto.INTS: lambda a: list(a.ints),
    onnx.AttributeProto.STRINGS: lambda a: [_text(s) for s in a.strings],
}


def decode_graph(graph: onnx.GraphProto, skeleton: Skeleton, outer: Scope | None = None) -> gs.Graph:
    """Build the mutable graph of a message, its subgraphs included.

    `result.constants` lists the initializers in order, used or not; `result.source` is the message without them.

    Raises:
        ModelError: a name is defined twice.
    """
    scope: Scope = ChainMap({}, outer) if outer is not None else {}
    own = scope.maps[0] if isinstance(scope, ChainMap) else scope
    declared = {each.name: each for each in [*graph.value_info, *graph.output, *graph.input]}
    constants = [*_initializers(graph, skeleton)]
    for constant in constants:
        if constant.name in own:
            raise ModelError(f"two initializers are called '{constant.name}'")
        own[constant.name] = constant
    inputs = {each.name for each in graph.input}
    for name, value in declared.items():
        if name in own:
            own[name].declared = value
        elif name in inputs or name not in scope:  # otherwise it is a tensor of an outer graph
            own[name] = decode_value(value)
    nodes = [_node(node, scope, own, skeleton) for node in graph.node]
    result = gs.Graph(
        nodes=nodes,
        inputs=[own[each.name] for each in graph.input],
        outputs=[_lookup(each.name, scope, own) for each in graph.output],
        name=graph.name,
        doc_string=graph.doc_string,
    )
    result.constants = constants
    result.source = _without(graph, "node", "initializer", "sparse_initializer")
    return result


def decode_value(value: onnx.ValueInfoProto) -> gs.Variable:
    """A variable with the dtype and shape that `value` declares; other than tensor types stay in `source` alone."""
    variable = gs.Variable(value.name, *tensor_type(value))
    variable.source = value
    return variable


def tensor_type(value: onnx.ValueInfoProto) -> tuple[np.dtype[Any] | None, list[int | str | None] | None]:
    """Dtype and shape of a declared tensor, None each where unknown; a size of −1 or '?' says nothing."""
    if not value.type.HasField("tensor_type"):
        return None, None
    tensor = value.type.tensor_type
    dtype = numpy_dtype(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, [_size(dim) for dim in tensor.shape.dim]


def decode_attribute(attribute: onnx.AttributeProto, scope: Scope | None, skeleton: Skeleton) -> Attribute:
    """The value of an attribute."""
    if attribute.ref_attr_name:
        return attribute
    if attribute.type == onnx.AttributeProto.UNDEFINED:
        raise ModelError(f"attribute '{attribute.name}' has no type: the file is damaged, or older than ONNX 1.0")
    if plain := _PLAIN.get(attribute.type):
        return plain(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return decode_tensor(attribute.t, skeleton)
    if attribute.type == onnx.AttributeProto.GRAPH:
        return decode_graph(attribute.g, skeleton, scope if scope is not None else {})
    return attribute


def decode_tensor(tensor: onnx.TensorProto, skeleton: Skeleton) -> gs.Constant:
    """A constant whose values stay where they are."""
    values: Values = skeleton.values(tensor) or Inline(tensor)
    constant = gs.Constant(tensor.name, values)
    constant.source = tensor
    return constant


def _initializers(graph: onnx.GraphProto, skeleton: Skeleton) -> list[gs.Constant]:
    sparse = [gs.Constant(each.values.name, SparseForm(each)) for each in graph.sparse_initializer]
    return [decode_tensor(each, skeleton) for each in graph.initializer] + sparse


def _node(node: onnx.NodeProto, scope: Scope, own: Scope, skeleton: Skeleton) -> gs.Node:
    result = gs.Node(
        op=node.op_type,
        name=node.name,
        attrs={each.name: decode_attribute(each, scope, skeleton) for each in node.attribute},
        inputs=[_lookup(name, scope, own) for name in node.input],
        outputs=[_lookup(name, own, own) for name in node.output],
        domain=node.domain or None,
    )
    for output in result.outputs:
        if len(output.inputs) > 1:
            raise ModelError(f"two nodes give the tensor '{output.name}'")
    result.source = _without(node, "input", "output", "attribute")
    result.source_attributes = {each.name: each for each in node.attribute if each.type in _PLAIN}
    return result


def _lookup(name: str, scope: Scope, own: Scope) -> gs.Tensor:
    if not name:
        return gs.Variable.empty()
    if name not in scope:
        own[name] = gs.Variable(name)
    return scope[name]


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param not in ("", "?") else None


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _without(message: onnx.GraphProto | onnx.NodeProto, *names: str) -> onnx.GraphProto | onnx.NodeProto:
    """A copy of a message that lacks some fields."""
    copy = type(message)()
    for descriptor, value in message.ListFields():
        if descriptor.name in names:
            continue
        if descriptor.is_repeated:
            getattr(copy, descriptor.name).extend(value)
        elif descriptor.message_type:
            getattr(copy, descriptor.name).CopyFrom(value)
        else:
            setattr(copy, descriptor.name, value)
    return copy
