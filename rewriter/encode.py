"""From the mutable graph to messages; the reverse of `decode`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message

from onnxpress.rewriter.decode import Attribute, tensor_type
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import LARGE, Inline, SparseForm, onnx_dtype, values_of


def encode_graph(graph: gs.Graph, skeleton: Skeleton, *, constants: Sequence[gs.Constant]) -> onnx.GraphProto:
    """The message of a graph; large constants go into the skeleton's table.

    Args:
        graph: with `source`, if it came from a message.
        skeleton: whose table takes the weights.
        constants: the initializers to write into this graph.
    """
    out = onnx.GraphProto()
    _say(out, name=graph.name, doc_string=graph.doc_string)
    out.node.extend(encode_node(node, skeleton) for node in graph.nodes)
    for constant in constants:
        values = values_of(constant)
        if isinstance(values, SparseForm):
            out.sparse_initializer.append(values.tensor)
            out.sparse_initializer[-1].values.name = constant.name
        else:
            out.initializer.append(encode_tensor(constant, skeleton))
    out.input.extend(_value(each) for each in graph.inputs)
    out.output.extend(_value(each) for each in graph.outputs)
    out.value_info.extend(_inner_values(graph, constants))
    if source := getattr(graph, "source", None):
        out.metadata_props.extend(source.metadata_props)
        alive = {t.name for n in graph.nodes for t in [*n.inputs, *n.outputs]} | {c.name for c in constants}
        out.quantization_annotation.extend(q for q in source.quantization_annotation if q.tensor_name in alive)
    return out


def encode_tensor(constant: gs.Constant, skeleton: Skeleton) -> onnx.TensorProto:
    """The message of a constant; only small ones carry their content."""
    values, source = values_of(constant), getattr(constant, "source", None)
    tensor = onnx.TensorProto(data_type=values.element_type, dims=values.shape)
    _say(tensor, name=constant.name)
    if isinstance(values, Inline) and values.nbytes < LARGE:
        tensor.CopyFrom(values.tensor)
        if tensor.name != constant.name:
            tensor.name = constant.name
        return tensor
    if source is not None:
        _copy(source, tensor, "doc_string")
        tensor.metadata_props.extend(source.metadata_props)
    if values.element_type == onnx.TensorProto.STRING or values.nbytes < LARGE:
        content = onnx.numpy_helper.from_array(values.load())
        tensor.string_data.extend(content.string_data)
        _copy(content, tensor, "raw_data")
    else:
        skeleton.mark(tensor, values)
    return tensor


def encode_node(node: gs.Node, skeleton: Skeleton) -> onnx.NodeProto:
    """The message of a node; large constants among its attributes go into the table."""
    source = getattr(node, "source", None)
    out = onnx.NodeProto(op_type=node.op)
    _say(out, name=node.name, domain=node.domain)
    out.input.extend(t.name for t in node.inputs)
    out.output.extend(t.name for t in node.outputs)
    known = getattr(node, "source_attributes", {})
    out.attribute.extend(_attribute(key, value, known.get(key), skeleton) for key, value in node.attrs.items())
    if source is not None and source.op_type == node.op:
        _copy(source, out, "doc_string", "overload")
        out.metadata_props.extend(source.metadata_props)
        out.device_configurations.extend(source.device_configurations)
    return out


def _attribute(
    name: str, value: Attribute, source: onnx.AttributeProto | None, skeleton: Skeleton
) -> onnx.AttributeProto:
    if isinstance(value, onnx.AttributeProto):
        return value
    if isinstance(value, gs.Graph):
        inner = encode_graph(value, skeleton, constants=value.constants)
        return onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPH, g=inner)
    if isinstance(value, gs.Tensor):
        tensor = encode_tensor(value, skeleton)
        return onnx.AttributeProto(name=name, type=onnx.AttributeProto.TENSOR, t=tensor)
    # an empty list, or 1 for 1.0, has no type of its own: the message it came from has
    kind = source.type if source is not None else None
    out = onnx.helper.make_attribute(name, value, attr_type=kind)
    if source is not None:
        _copy(source, out, "doc_string")
    return out


def _value(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    """What the model declares of a tensor: as it came, unless a pass changed dtype or shape."""
    source = getattr(tensor, "declared", None) or getattr(tensor, "source", None)
    if isinstance(tensor, gs.Constant):
        return source if isinstance(source, onnx.ValueInfoProto) else _declare(tensor.name, tensor.dtype, tensor.shape)
    if isinstance(source, onnx.ValueInfoProto) and tensor_type(source) == (tensor.dtype, tensor.shape):
        if source.name == tensor.name:
            return source
        renamed = onnx.ValueInfoProto()
        renamed.CopyFrom(source)
        renamed.name = tensor.name
        return renamed
    if tensor.dtype is None:
        return onnx.ValueInfoProto(name=tensor.name)
    return _declare(tensor.name, tensor.dtype, tensor.shape)


def _declare(name: str, dtype: np.dtype[Any], shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx_dtype(dtype), None if shape is None else list(shape))


def _inner_values(graph: gs.Graph, constants: Iterable[gs.Constant]) -> list[onnx.ValueInfoProto]:
    """Declarations of tensors that are neither inputs nor outputs."""
    ends = {t.name for t in [*graph.inputs, *graph.outputs]}
    found = [_value(t) for n in graph.nodes for t in n.outputs if t.name and t.name not in ends]
    declared = [c.declared for c in constants if hasattr(c, "declared") and c.name not in ends]
    return [value for value in found if value.HasField("type")] + declared


def _say(message: Message, **fields: str | None) -> None:
    """Set the fields that say something; an empty one would still cost bytes."""
    for key, value in fields.items():
        if value:
            setattr(message, key, value)


def _copy(source: Message, target: Message, *names: str) -> None:
    for name in names:
        if source.HasField(name):
            setattr(target, name, getattr(source, name))
