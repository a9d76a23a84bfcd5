"""What holds of every model between two passes, as a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.decode import Attribute
from onnxpress.rewriter.errors import ModelError, OnnxpressError
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.walk import graphs, nodes


class InvariantError(OnnxpressError):
    """A pass left the graph in a state that no file may have: a bug in that pass."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What callers of a model rely on."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: Model) -> Interface:
        """The interface of a model."""
        return cls(tuple(each.name for each in model.inputs), model.outputs)


def check(model: Model, interface: Interface) -> None:
    """Check all rules.

    Raises:
        InvariantError: names the rule, and the first places that break it.
    """
    for text, rule in RULES.items():
        broken = list(rule(model, interface))
        if broken:
            raise InvariantError(f"{text}: {'; '.join(broken[:3])}" + (" …" if len(broken) > 3 else ""))


def check_operators(model: Model) -> None:
    """Refuse a model, before any pass touches it, whose nodes are none of its opset's.

    Raises:
        ModelError: names the first places.
    """
    broken = list(_known_operators(model, Interface.of(model)))
    if broken:
        raise ModelError(f"{'; '.join(broken[:3])}: export the model again")


def _same_interface(model: Model, interface: Interface) -> Iterator[str]:
    now = Interface.of(model)
    if now != interface:
        yield f"{interface.inputs} → {interface.outputs} became {now.inputs} → {now.outputs}"


def _one_producer(model: Model, interface: Interface) -> Iterator[str]:
    for graph in graphs(model.graph):
        seen = {t.name for t in graph.inputs} | {c.name for c in graph.constants}
        seen -= {t.name for t in graph.inputs if isinstance(t, gs.Constant)}
        for node in graph.nodes:
            for tensor in node.outputs:
                if tensor.name and tensor.name in seen:
                    yield f"'{tensor.name}' is written again by {node.op} '{node.name}'"
                seen.add(tensor.name)


def _everything_defined(model: Model, interface: Interface) -> Iterator[str]:
    outer = {c.name for c in model.constants()}
    yield from _undefined(model.graph, outer)


def _undefined(graph: gs.Graph, outer: set[str]) -> Iterator[str]:
    """Walk in order, so that a node before its source is found too."""
    known = outer | {t.name for t in graph.inputs} | {c.name for c in graph.constants}
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.name and tensor.name not in known:
                yield f"{node.op} '{node.name}' reads '{tensor.name}', which nothing before it writes"
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                yield from _undefined(inner, known)
        known |= {t.name for t in node.outputs}
    for tensor in graph.outputs:
        if tensor.name not in known:
            yield f"output '{tensor.name}' is written by nothing"


def _domains_imported(model: Model, interface: Interface) -> Iterator[str]:
    imported = {o.domain for o in model.header.opset_import} | set(DEFAULT_DOMAINS)
    for _, node in nodes(model.graph):
        if (node.domain or "") not in imported:
            yield f"{node.op} '{node.name}' is of domain '{node.domain}', which the model does not import"


def _known_operators(model: Model, interface: Interface) -> Iterator[str]:
    for _, node in nodes(model.graph):
        if (node.domain or "") not in DEFAULT_DOMAINS:
            continue
        try:
            schema = onnx.defs.get_schema(node.op, model.opset, "")
        except onnx.defs.SchemaError:
            if not any(f.name == node.op for f in model.functions):
                yield f"{node.op} '{node.name}' does not exist in opset {model.opset}"
            continue
        if not schema.min_input <= len(node.inputs) <= schema.max_input:
            yield f"{node.op} '{node.name}' has {len(node.inputs)} inputs"
        for name, value in node.attrs.items():
            if name in schema.attributes and not _fits(value, schema.attributes[name].type):
                yield f"attribute '{name}' of {node.op} '{node.name}' is of the wrong type"


_Type = onnx.defs.OpSchema.AttrType
_SINGLE: dict[_Type, tuple[type, ...]] = {
    _Type.FLOAT: (float, int),
    _Type.INT: (int,),
    _Type.STRING: (str, bytes),
    _Type.TENSOR: (gs.Tensor,),
    _Type.GRAPH: (gs.Graph,),
}
_LISTS = {_Type.FLOATS: _Type.FLOAT, _Type.INTS: _Type.INT, _Type.STRINGS: _Type.STRING}


def _fits(value: Attribute, kind: _Type) -> bool:
    """Whether a value is of the type that the schema wants; messages kept as they came are not looked into."""
    if isinstance(value, onnx.AttributeProto):
        return True
    if kind in _LISTS:
        return isinstance(value, list) and all(_fits(each, _LISTS[kind]) for each in value)
    return kind not in _SINGLE or isinstance(value, _SINGLE[kind])


RULES: dict[str, Callable[[Model, Interface], Iterator[str]]] = {
    "the model keeps its inputs and outputs": _same_interface,
    "a tensor is written once": _one_producer,
    "a tensor is written before it is read": _everything_defined,
    "a node's domain is imported": _domains_imported,
    "a node's operator exists in the model's opset and takes that many inputs": _known_operators,
}
