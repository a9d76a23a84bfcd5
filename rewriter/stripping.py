"""What a model file says that nobody needs to run it, taken out of the message."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import onnx
from google.protobuf.message import Message

from onnxpress.rewriter.model import DEFAULT_DOMAINS
from onnxpress.rewriter.renaming import graphs_of

logger = logging.getLogger(__name__)

_NOTES = ("doc_string", "metadata_props")
"""Fields of nodes, tensors, values and functions that say something to people."""

_WINDOWS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("dilations", "pads", "strides"),
    "ConvTranspose": ("dilations", "output_padding", "pads", "strides"),
    "MaxPool": ("dilations", "pads", "strides"),
    "AveragePool": ("dilations", "pads", "strides"),
}
"""Attributes with one number for each axis, whose default no schema can state: no padding, steps of one."""

_STATED = 11
"""Version of the standard operators from which their text says so."""

_Message = TypeVar("_Message", bound=Message)


def drop_notes(proto: onnx.ModelProto) -> int:
    """Drop doc strings everywhere, and the metadata of nodes, tensors, values and functions.

    Returns:
        How many messages had any.
    """
    changed = sum(_clear(each, "doc_string") for each in (proto, proto.graph))
    for graph in _graphs(proto.graph):
        changed += _clear(graph, "doc_string")
        changed += sum(_clear(each, *_NOTES) for each in [*graph.input, *graph.output, *graph.value_info])
        changed += sum(_clear(each, *_NOTES) for each in graph.initializer)
        changed += _of_nodes(graph.node)
    for function in proto.functions:
        changed += _clear(function, *_NOTES) + _of_nodes(function.node)
        changed += sum(_clear(each, *_NOTES) for each in function.value_info)
    return changed


def drop_metadata(proto: onnx.ModelProto) -> int:
    """Drop the metadata of the model and its graphs, where applications may keep labels.

    Returns:
        How many entries there were.
    """
    changed = len(proto.metadata_props)
    proto.ClearField("metadata_props")
    for graph in _graphs(proto.graph):
        changed += len(graph.metadata_props)
        graph.ClearField("metadata_props")
    return changed


def drop_shapes(proto: onnx.ModelProto) -> int:
    """Drop declarations of types and shapes that plain inference finds again without them; the others stay.

    Returns:
        How many were dropped.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for graph in _graphs(bare.graph):
        graph.ClearField("value_info")
    return _drop_known(proto.graph, _inferred(bare).graph)


def drop_defaults(proto: onnx.ModelProto) -> int:
    """Drop attributes of standard operators that state what the operator takes anyway.

    Returns:
        How many were dropped.
    """
    opset = next((each.version for each in proto.opset_import if each.domain in DEFAULT_DOMAINS), 0)
    changed = 0
    for graph in _graphs(proto.graph):
        for node in graph.node:
            usual = _defaults(node, opset)
            said = [each for each in node.attribute if _content(each) != usual.get(each.name)]
            kept = [each for each in said if not _idle(node, each, opset)]
            if len(kept) < len(node.attribute):
                changed += len(node.attribute) - len(kept)
                kept = [_copied(each) for each in kept]
                node.ClearField("attribute")
                node.attribute.extend(kept)
    return changed


def drop_imports(proto: onnx.ModelProto) -> int:
    """Drop local functions that nothing calls, and imports of domains that no node is of.

    Returns:
        How many were dropped.
    """
    called = {(node.domain, node.op_type) for graph in _graphs(proto.graph) for node in graph.node}
    waiting = list(called)
    bodies = {(each.domain, each.name): each for each in proto.functions}
    while waiting:
        function = bodies.get(waiting.pop())
        inside = {(node.domain, node.op_type) for node in function.node} if function is not None else set()
        waiting += inside - called
        called |= inside
    functions = [each for each in proto.functions if (each.domain, each.name) in called]
    used = {domain for domain, _ in called} | set(DEFAULT_DOMAINS)
    imports = [each for each in proto.opset_import if each.domain in used]
    changed = len(proto.functions) - len(functions) + len(proto.opset_import) - len(imports)
    if changed:
        functions, imports = [_copied(each) for each in functions], [_copied(each) for each in imports]
        proto.ClearField("functions")
        proto.ClearField("opset_import")
        proto.functions.extend(functions)
        proto.opset_import.extend(imports)
    return changed


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from _graphs(inner)


def _clear(message: Message, *names: str) -> int:
    """Clear fields; 1 where one of them said something."""
    said = [name for name in names if getattr(message, name)]
    for name in said:
        message.ClearField(name)
    return bool(said)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> int:
    changed = 0
    for node in nodes:
        changed += _clear(node, *_NOTES)
        for attribute in node.attribute:
            changed += _clear(attribute, "doc_string")
            if attribute.HasField("t"):
                changed += _clear(attribute.t, *_NOTES)
    return changed


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With the types and shapes that follow from the nodes alone, which every runtime finds."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except Exception as error:  # any failure here only means that less is known
        logger.info("shape inference by onnx failed: %s", error)
        return proto


def _drop_known(graph: onnx.GraphProto, bare: onnx.GraphProto) -> int:
    """Drop the declarations of a graph, and of those inside it, that its bare counterpart has, too."""
    found = {each.name: each.type for each in bare.value_info}
    written = {name for node in graph.node for name in node.output}
    kept = [each for each in graph.value_info if each.name in written and not _tells(found.get(each.name), each.type)]
    changed = len(graph.value_info) - len(kept)
    if changed:
        kept = [_copied(each) for each in kept]
        graph.ClearField("value_info")
        graph.value_info.extend(kept)
    for node, other in zip(graph.node, bare.node, strict=True):
        for inner, without in zip(graphs_of(node), graphs_of(other), strict=True):
            changed += _drop_known(inner, without)
    return changed


def _tells(found: onnx.TypeProto | None, declared: onnx.TypeProto) -> bool:
    """Whether what was found says as much as a declaration; the names of dynamic sizes do not count."""
    if found is None:
        return False
    if not (found.HasField("tensor_type") and declared.HasField("tensor_type")):
        return bool(found == declared)
    one, other = found.tensor_type, declared.tensor_type
    if one.elem_type != other.elem_type or not one.HasField("shape"):
        return one.elem_type == other.elem_type and not other.HasField("shape")
    if not other.HasField("shape"):
        return True
    sizes = zip(one.shape.dim, other.shape.dim, strict=False)
    return len(one.shape.dim) == len(other.shape.dim) and all(
        not wanted.HasField("dim_value") or (size.HasField("dim_value") and size.dim_value == wanted.dim_value)
        for size, wanted in sizes
    )


def _defaults(node: onnx.NodeProto, opset: int) -> Mapping[str, bytes]:
    """What each attribute of a standard operator says where it is left out."""
    if node.domain not in DEFAULT_DOMAINS:
        return {}
    try:
        attributes = onnx.defs.get_schema(node.op_type, opset, "").attributes
    except onnx.defs.SchemaError:
        return {}
    usual = {name: each.default_value for name, each in attributes.items() if not each.required}
    return {name: _content(value) for name, value in usual.items() if value.type}


def _idle(node: onnx.NodeProto, attribute: onnx.AttributeProto, opset: int) -> bool:
    """Whether an attribute of a window says that nothing is padded, skipped or spread."""
    if node.domain not in DEFAULT_DOMAINS or opset < _STATED or attribute.name not in _WINDOWS.get(node.op_type, ()):
        return False
    return set(attribute.ints) == ({0} if "pad" in attribute.name else {1})


def _content(attribute: onnx.AttributeProto) -> bytes:
    """An attribute as bytes, without its documentation."""
    plain = _copied(attribute)
    plain.ClearField("doc_string")
    return bytes(plain.SerializeToString(deterministic=True))


def _copied(message: _Message) -> _Message:
    """Apart from what it is part of: clearing a field frees the messages in it."""
    copy: _Message = type(message)()
    copy.CopyFrom(message)
    return copy
