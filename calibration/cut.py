"""A model cut down to what some of its tensors need, with those as its outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from onnxpress.rewriter.errors import ConfigError, ModelError

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

_Message = TypeVar("_Message", "onnx.ModelProto", "onnx.GraphProto")


def read_model(model: Path | bytes) -> onnx.ModelProto:
    """Read a model without its external data.

    Raises:
        ModelError: no such file, or no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return onnx.load(model, load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"no file {model!s}; check the path") from error
    except DecodeError as error:
        name = "the model" if isinstance(model, bytes) else model.name
        raise ModelError(f"{name} is no ONNX model, or cut short; export it again") from error


def check_tensors(model: onnx.ModelProto, tensors: Iterable[str]) -> None:
    """Refuse tensors that the main graph does not have.

    Raises:
        ConfigError: a name that is no tensor, or only one inside a branch or loop.
    """
    graph = model.graph
    known = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
    known.update(name for node in graph.node for name in node.output)
    for tensor in tensors:
        if not tensor or tensor not in known:
            raise ConfigError(f"tensor {tensor!r} is not in the main graph; only tensors outside If and Loop are seen")


LIGHT = 1024
"""Bytes up to which a weight may decide about shapes."""


def cut(
    model: onnx.ModelProto,
    outputs: Sequence[str],
    *,
    after: Mapping[str, Sequence[onnx.NodeProto]] | None = None,
    light: bool = False,
) -> onnx.ModelProto:
    """Copy the part of a model that computes `outputs`, which become its outputs.

    Their types are left out: ONNX Runtime infers them. Weights that are not needed are not copied.

    Args:
        model: the model, left as it is.
        outputs: names of tensors.
        after: nodes to add, by the tensor they read; each stands right behind the node that writes the tensor.
        light: large weights become inputs, for a part that is only looked at.
    """
    import onnx

    needed = set(outputs)
    kept = []
    for node in reversed(_nodes(model.graph, after or {})):
        if not needed.isdisjoint(node.output):
            needed.update(names_read(node))
            kept.append(node)
    part = _copy(model, without={"graph"})
    part.graph.CopyFrom(_copy(model.graph, without={"node", "initializer", "output"}))
    part.graph.node.extend(reversed(kept))
    for weight in model.graph.initializer:
        if weight.name not in needed:
            continue
        if light and (weight.external_data or len(weight.raw_data) > LIGHT):
            if all(value.name != weight.name for value in part.graph.input):  # an input's default is an input already
                kind = onnx.helper.make_tensor_type_proto(weight.data_type, weight.dims)
                part.graph.input.append(onnx.helper.make_value_info(weight.name, kind))
        else:
            part.graph.initializer.append(weight)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return part


def between(
    model: onnx.ModelProto, given: Mapping[str, onnx.ValueInfoProto], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Copy the part of a model that computes `outputs` from tensors that are there already, which become its inputs.

    It has no other inputs than those it reads, and weights that the model lists as inputs. Types of its outputs are
    left out: ONNX Runtime infers them.

    Args:
        model: the model, left as it is.
        given: what is there, with types, by name; inputs of the model are given by declaring them here.
        outputs: names of tensors that nodes write, none of them given.
    """
    import onnx

    kept = nodes_between(model.graph, given, outputs)
    needed = {name for node in kept for name in names_read(node)}
    part = _copy(model, without={"graph"})
    part.graph.CopyFrom(_copy(model.graph, without={"node", "initializer", "input", "output", "value_info"}))
    part.graph.node.extend(kept)
    for node in part.graph.node:
        for index, name in enumerate(node.output):
            if name in given:  # an input has that name now; the node is run for another output
                node.output[index] = f"{name}/again"
    weights = [weight for weight in model.graph.initializer if weight.name in needed]
    part.graph.initializer.extend(weights)
    names = {weight.name for weight in weights}  # before IR version 4, each of them is an input, too
    part.graph.input.extend(value for value in model.graph.input if value.name in names)
    part.graph.input.extend(value for name, value in given.items() if name in needed)
    written = {name for node in kept for name in node.output} - set(given)
    part.graph.value_info.extend(value for value in model.graph.value_info if value.name in written - set(outputs))
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return part


def nodes_between(graph: onnx.GraphProto, given: Collection[str], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that compute `outputs` from tensors that are there already, in order."""
    needed = set(outputs)
    kept = []
    for node in reversed(graph.node):
        if any(name in needed and name not in given for name in node.output):
            needed.update(names_read(node))
            kept.append(node)
    return kept[::-1]


def _nodes(graph: onnx.GraphProto, after: Mapping[str, Sequence[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    written = {name for node in graph.node for name in node.output}
    nodes = [new for tensor, added in after.items() if tensor not in written for new in added]
    for node in graph.node:
        nodes.append(node)
        nodes.extend(new for name in node.output for new in after.get(name, ()))
    return nodes


def _copy(message: _Message, *, without: Collection[str]) -> _Message:
    """Copy a message but for some of its fields, which may be too large to copy and drop."""
    made = type(message)()
    for field, value in message.ListFields():
        if field.name not in without:
            if isinstance(value, int | float | str | bytes):
                setattr(made, field.name, value)
            else:
                getattr(made, field.name).MergeFrom(value)
    return made


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 where the model uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def names_read(node: onnx.NodeProto) -> Iterable[str]:
    """What a node reads, also inside its branches and loops; names of theirs do no harm."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)
            yield from (value.name for value in graph.output)
