"""A model cut down to what some of its tensors need, with those as its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxpress.rewriter.errors import ConfigError, ModelError

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx


def load_skeleton(model: Path | bytes) -> onnx.ModelProto:
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


def set_outputs(
    model: onnx.ModelProto, outputs: Sequence[str], *, after: Mapping[str, Sequence[onnx.NodeProto]] | None = None
) -> None:
    """Make `outputs` the outputs of the graph and drop, in place, what they do not need.

    Their types are left out: ONNX Runtime infers them.

    Args:
        model: the model.
        outputs: names of tensors.
        after: nodes to add, by the tensor they read; each stands right behind the node that writes the tensor.
    """
    import onnx

    graph = model.graph
    if after:
        _insert(graph, after)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    needed = set(outputs)
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if needed.isdisjoint(node.output):
            del graph.node[position]
        else:
            needed.update(_names_read(node))
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in needed:
            del graph.initializer[position]


def _insert(graph: onnx.GraphProto, after: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    written = {name for node in graph.node for name in node.output}
    nodes = [new for tensor, added in after.items() if tensor not in written for new in added]
    for node in graph.node:
        nodes.append(node)
        nodes.extend(new for name in node.output for new in after.get(name, ()))
    del graph.node[:]
    graph.node.extend(nodes)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 where the model uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _names_read(node: onnx.NodeProto) -> Iterable[str]:
    """What a node reads, also inside its branches and loops; names of theirs do no harm."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
            for inner in graph.node:
                yield from _names_read(inner)
            yield from (value.name for value in graph.output)
