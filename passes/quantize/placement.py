"""Which tensors carry 8-bit codes: a table of rules for what ONNX Runtime fuses, and the plan that follows from it.

A layer (constant weight) is what 8 bits make fast. The operators between layers follow where codes reach them anyway
and a layer further on takes codes; all others compute in float, between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Use
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import read


class Output(Enum):
    """Whether ONNX Runtime needs codes behind an operator to run it on codes."""

    ALWAYS = "always"
    IF_READ = "only where the next one reads codes"


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator stands to codes.

    Attributes:
        layer: it has a constant weight, and takes codes whatever comes before it; others only follow.
        inputs: indices of the activations it reads; None for all inputs.
        output: whether it must give codes.
        shares: what it reads and gives has one scale, because values only move.
        refuse: why this one node cannot run on codes; None where it can.
    """

    layer: bool
    inputs: tuple[int, ...] | None = (0,)
    output: Output = Output.ALWAYS
    shares: bool = False
    refuse: Callable[[gs.Node], str | None] = lambda node: None


THIN = 64
"""Products summed into one output of a Conv below which it is thin (depthwise, or few input channels): turning its
output back into float costs more than 8-bit products save (measured on x86 with VNNI)."""


def is_thin(node: gs.Node) -> bool:
    """Whether a layer is worth codes only where its output is read as codes."""
    return node.op == "Conv" and int(np.prod(node.inputs[1].shape[1:])) < THIN


def is_standard(node: gs.Node) -> bool:
    """Whether a node's operator is one of ONNX's own."""
    return (node.domain or "") in DEFAULT_DOMAINS


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a constant of one element, else None."""
    if not isinstance(tensor, gs.Constant) or any(size != 1 for size in tensor.shape):
        return None
    return float(read(tensor).reshape(-1)[0])


def _conv(node: gs.Node) -> str | None:
    if len(node.inputs) > 2 and node.inputs[2].name and not isinstance(node.inputs[2], gs.Constant):
        return "its bias is computed at run time"
    return None


def _gemm(node: gs.Node) -> str | None:
    if node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1.0:
        return "ONNX Runtime has no 8-bit Gemm with transA or alpha"
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return None
    bias, weight = node.inputs[2], node.inputs[1]
    channels = weight.shape[0 if node.attrs.get("transB", 0) else 1]
    if not isinstance(bias, gs.Constant) or tuple(bias.shape) not in ((channels,), (1, channels)):
        return "its bias is not one constant number a channel"
    return None if node.attrs.get("beta", 1.0) == 1.0 else "ONNX Runtime has no 8-bit Gemm with beta"


def _matmul(node: gs.Node) -> str | None:
    return None if len(node.inputs[1].shape) == 2 else "its weight is a stack of matrices"


def _add(node: gs.Node) -> str | None:
    constant = any(isinstance(tensor, gs.Constant) for tensor in node.inputs)
    return "a constant is added, which is cheap in float" if constant else None


RULES: Mapping[str, Rule] = {
    "Conv": Rule(layer=True, refuse=_conv),
    "Gemm": Rule(layer=True, output=Output.IF_READ, refuse=_gemm),
    "MatMul": Rule(layer=True, output=Output.IF_READ, refuse=_matmul),
    "Add": Rule(layer=False, inputs=(0, 1), refuse=_add),
    "GlobalAveragePool": Rule(layer=False),
    "AveragePool": Rule(layer=False),
    "Concat": Rule(layer=False, inputs=None, shares=True),
    "MaxPool": Rule(layer=False, shares=True),
    "Reshape": Rule(layer=False, shares=True),
    "Flatten": Rule(layer=False, shares=True),
    "Squeeze": Rule(layer=False, shares=True),
    "Unsqueeze": Rule(layer=False, shares=True),
    "Transpose": Rule(layer=False, shares=True),
}
"""What is not here (Sigmoid, HardSwish, Softmax, LayerNormalization, Gelu, products of activations …) stays float."""

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QGemm")

ABSORBED = ("Relu", "Clip")
"""Operators that vanish between another one and the codes behind it, because no code lies beyond their bounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Wrapped:
    """A tensor that is turned into codes and back.

    Attributes:
        tensor: the tensor.
        readers: the inputs (node, index) that read codes; None for all, also those that compute in float.
        group: tensors of the same group share one scale.
    """

    tensor: gs.Tensor
    readers: tuple[tuple[gs.Node, int], ...] | None
    group: int


@dataclass(slots=True)
class Placement:
    """Where codes go.

    Attributes:
        coded: the nodes that run on codes, by identity, in graph order.
        tensors: what is turned into codes.
        tails: what carries the result of each of these nodes, by its identity: its output, or that of the operator
            that vanishes into it.
    """

    coded: dict[int, gs.Node] = field(default_factory=dict)
    tensors: list[Wrapped] = field(default_factory=list)
    tails: dict[int, gs.Tensor] = field(default_factory=dict)


def rule_of(node: gs.Node) -> Rule | None:
    """The rule of a node's operator; None where it has none."""
    return RULES.get(str(node.op)) if is_standard(node) else None


def activations(node: gs.Node, rule: Rule) -> list[int]:
    """Indices of what a node reads as codes."""
    return list(range(len(node.inputs)) if rule.inputs is None else rule.inputs)


def refusal(use: Use, *, ops: Sequence[str] | None = None) -> str | None:
    """Why a node that uses a weight cannot be a layer on codes; None where it can."""
    node, rule = use.node, rule_of(use.node)
    if rule is None or not rule.layer:
        return f"ONNX Runtime has no {node.op} on 8-bit codes"
    if ops is not None and node.op not in ops:
        return f"{node.op} is not among ops"
    if use.index != 1:
        return "its weight is on the left"
    source = node.inputs[0]
    if isinstance(source, gs.Constant):
        return "it reads nothing but constants"
    if source.inputs and source.inputs[0].op == "DequantizeLinear":
        return "it reads codes already"
    return rule.refuse(node)


def count_quantized(model: Model) -> int:
    """Number of nodes in the model that read or make codes."""
    return sum(str(node.op) in _QUANTIZED or str(node.op).startswith("QLinear") for _, node in nodes(model.graph))


def place(
    model: Model, layers: Sequence[gs.Node], *, ops: Sequence[str] | None = None, barred: Collection[int] = ()
) -> Placement:
    """Plan where codes go in the main graph.

    Args:
        model: its nodes are in order.
        layers: nodes that are to run on codes.
        ops: operators that may follow; None for all of the table.
        barred: identities of tensors that must not carry codes; a layer that needs one there is no layer.
    """
    return _Planner(model, layers, ops, barred).plan()


class _Planner:
    """One plan in the making."""

    def __init__(
        self, model: Model, layers: Sequence[gs.Node], ops: Sequence[str] | None, barred: Collection[int]
    ) -> None:
        self.nodes: Sequence[gs.Node] = model.graph.nodes
        self.public = output_ids(model)
        self.ops = ops
        self.barred = barred
        self.coded = {id(node): node for node in layers if not self._bars(node, RULES[str(node.op)])}

    def plan(self) -> Placement:
        for node in self._followers():
            self.coded[id(node)] = node
        for node in reversed(self.nodes):  # who follows for nobody is let go
            rule = rule_of(node)
            follows = rule is not None and (not rule.layer or is_thin(node))
            if id(node) in self.coded and follows and not self._read(self.tail(node)):
                del self.coded[id(node)]
        placement = Placement({id(node): node for node in self.nodes if id(node) in self.coded})
        placement.tails = {key: self.tail(node) for key, node in placement.coded.items()}
        placement.tensors.extend(self._wrap(placement))
        return placement

    def tail(self, node: gs.Node) -> gs.Tensor:
        """What carries the codes behind a node: its output, or that of the operator that vanishes into it."""
        out = node.outputs[0]
        if len(out.outputs) != 1 or id(out) in self.public:
            return out
        reader = out.outputs[0]
        if reader.op not in ABSORBED or not is_standard(reader) or reader.inputs[0] is not out:
            return out
        # Bounds beside zero are not exact codes, so ONNX Runtime keeps a Clip with such.
        fits = reader.op == "Relu" or (len(reader.inputs) > 1 and scalar(reader.inputs[1]) == 0.0)
        return reader.outputs[0] if fits and all(isinstance(t, gs.Constant) for t in reader.inputs[1:]) else out

    def _followers(self) -> Iterator[gs.Node]:
        carries: set[int] = set()
        for node in self.nodes:
            rule = rule_of(node)
            if rule is None:
                continue
            layer = id(node) in self.coded
            if (layer and id(self.tail(node)) not in self.barred) or self._follows(node, rule, carries):
                carries.add(id(self.tail(node)))
                if not layer:
                    yield node

    def _follows(self, node: gs.Node, rule: Rule, carries: set[int]) -> bool:
        if rule.layer or (self.ops is not None and node.op not in self.ops) or rule.refuse(node) is not None:
            return False
        return not self._bars(node, rule) and all(id(node.inputs[i]) in carries for i in activations(node, rule))

    def _bars(self, node: gs.Node, rule: Rule) -> bool:
        """Whether a node would put codes where they must not be."""
        needed = {id(node.inputs[index]) for index in activations(node, rule)}
        if rule.output is Output.ALWAYS:
            needed.add(id(self.tail(node)))
        return not needed.isdisjoint(self.barred)

    def _read(self, tensor: gs.Tensor) -> bool:
        """Whether somebody reads `tensor` as codes."""
        return any(True for _ in self._code_readers(tensor))

    def _code_readers(self, tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
        for reader in {id(node): node for node in tensor.outputs}.values():
            rule = rule_of(reader)
            if id(reader) in self.coded and rule is not None:
                yield from ((reader, i) for i in activations(reader, rule) if reader.inputs[i] is tensor)

    def _wrap(self, placement: Placement) -> Iterator[Wrapped]:
        given: dict[int, gs.Tensor] = {}
        read: dict[int, gs.Tensor] = {}
        groups = _Groups()
        for node in placement.coded.values():
            rule = RULES[str(node.op)]
            sources, tail = [node.inputs[i] for i in activations(node, rule)], placement.tails[id(node)]
            read.update((id(tensor), tensor) for tensor in sources)
            if rule.output is Output.ALWAYS or (self._read(tail) and id(tail) not in self.barred):
                given[id(tail)] = tail
            if rule.shares:
                for tensor in sources:
                    groups.unite(id(tensor), id(tail))
        for key, tensor in {**read, **given}.items():
            readers = None if key in given else tuple(self._code_readers(tensor))
            yield Wrapped(tensor, readers, groups.find(key))


class _Groups:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, member: int) -> int:
        while (parent := self._parent.get(member, member)) != member:
            member = parent
        return member

    def unite(self, one: int, other: int) -> None:
        self._parent[self.find(one)] = self.find(other)
