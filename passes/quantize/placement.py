"""Which tensors carry codes: the plan that follows from a table of rules.

A layer (constant weight) is what 8 bits make fast. The operators between layers follow where codes reach them anyway
and a layer further on takes codes; all others compute in float, between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxpress.passes.quantize.rules import ABSORBED, CPU, Output, Rule, Rules, is_standard, is_thin, rule_of, scalar
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model


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
        recurrent: LSTMs that run on codes besides.
    """

    coded: dict[int, gs.Node] = field(default_factory=dict)
    tensors: list[Wrapped] = field(default_factory=list)
    tails: dict[int, gs.Tensor] = field(default_factory=dict)
    recurrent: int = 0


def place(
    model: Model,
    layers: Sequence[gs.Node],
    *,
    rules: Rules = CPU,
    ops: Sequence[str] | None = None,
    barred: Collection[int] = (),
) -> Placement:
    """Plan where codes go in the main graph.

    Args:
        model: its nodes are in order.
        layers: nodes that are to run on codes.
        rules: the table of the runtime.
        ops: operators that may follow; None for all of the table.
        barred: identities of tensors that must not carry codes; a layer that needs one there is no layer.
    """
    return _Planner(model, layers, rules, ops, barred).plan()


def tail_of(node: gs.Node, public: Collection[int]) -> gs.Tensor:
    """What carries the codes behind a node: its output, or that of the operator that vanishes into it.

    Args:
        node: of the main graph.
        public: identities of tensors that are outputs of a graph.
    """
    out = node.outputs[0]
    if len(out.outputs) != 1 or id(out) in public:
        return out
    reader = out.outputs[0]
    if reader.op not in ABSORBED or not is_standard(reader) or reader.inputs[0] is not out:
        return out
    # Bounds beside zero are not exact codes, so ONNX Runtime keeps a Clip with such.
    fits = reader.op == "Relu" or (len(reader.inputs) > 1 and scalar(reader.inputs[1]) == 0.0)
    return reader.outputs[0] if fits and all(isinstance(t, gs.Constant) for t in reader.inputs[1:]) else out


class _Planner:
    """One plan in the making."""

    def __init__(
        self,
        model: Model,
        layers: Sequence[gs.Node],
        rules: Rules,
        ops: Sequence[str] | None,
        barred: Collection[int],
    ) -> None:
        self.nodes: Sequence[gs.Node] = model.graph.nodes
        self.public = output_ids(model)
        self.rules = rules
        self.ops = ops
        self.barred = barred
        self.coded = {id(node): node for node in layers if not self._bars(node, rules[str(node.op)])}

    def plan(self) -> Placement:
        for node in self._followers():
            self.coded[id(node)] = node
        for node in reversed(self.nodes):  # who follows for nobody is let go
            rule = rule_of(node, self.rules)
            follows = rule is not None and (not (rule.layer or rule.joins) or self._is_thin(node, rule))
            if id(node) in self.coded and follows and not self._read(self.tail(node)):
                del self.coded[id(node)]
        placement = Placement({id(node): node for node in self.nodes if id(node) in self.coded})
        placement.tails = {key: self.tail(node) for key, node in placement.coded.items()}
        placement.tensors.extend(self._wrap(placement))
        return placement

    def tail(self, node: gs.Node) -> gs.Tensor:
        return tail_of(node, self.public)

    def _is_thin(self, node: gs.Node, rule: Rule) -> bool:
        return is_thin(node) and rule.output is Output.ALWAYS

    def _followers(self) -> Iterator[gs.Node]:
        carries: set[int] = set()
        for node in self.nodes:
            rule = rule_of(node, self.rules)
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
        if rule.joins:
            return self._fuses(node) and not self._bars(node, rule)
        return not self._bars(node, rule) and all(id(node.inputs[i]) in carries for i in rule.activations(node))

    def _fuses(self, node: gs.Node) -> bool:
        """Whether a layer on codes ends in a node."""
        return any(id(source) in self.coded for tensor in node.inputs for source in tensor.inputs)

    def _bars(self, node: gs.Node, rule: Rule) -> bool:
        """Whether a node would put codes where they must not be."""
        needed = {id(node.inputs[index]) for index in rule.activations(node)}
        if rule.output is Output.ALWAYS:
            needed.add(id(self.tail(node)))
        return not needed.isdisjoint(self.barred)

    def _read(self, tensor: gs.Tensor) -> bool:
        """Whether somebody reads `tensor` as codes."""
        return any(True for _ in self._code_readers(tensor))

    def _code_readers(self, tensor: gs.Tensor) -> Iterator[tuple[gs.Node, int]]:
        for reader in {id(node): node for node in tensor.outputs}.values():
            rule = rule_of(reader, self.rules)
            if id(reader) in self.coded and rule is not None:
                yield from ((reader, i) for i in rule.activations(reader) if reader.inputs[i] is tensor)

    def _wrap(self, placement: Placement) -> Iterator[Wrapped]:
        given: dict[int, gs.Tensor] = {}
        read: dict[int, gs.Tensor] = {}
        groups = Groups()
        for node in placement.coded.values():
            rule = self.rules[str(node.op)]
            sources, tail = [node.inputs[i] for i in rule.activations(node)], placement.tails[id(node)]
            read.update((id(tensor), tensor) for tensor in sources)
            if self._gives(rule, tail):
                given[id(tail)] = tail
            if rule.shares:
                for tensor in sources:
                    groups.unite(id(tensor), id(tail))
        for key, tensor in {**read, **given}.items():
            readers = None if key in given else tuple(self._code_readers(tensor))
            yield Wrapped(tensor, readers, groups.find(key))

    def _gives(self, rule: Rule, tail: gs.Tensor) -> bool:
        if rule.output is Output.IF_READ:
            return self._read(tail) and id(tail) not in self.barred
        return rule.output is Output.ALWAYS


class Groups:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, member: int) -> int:
        """What stands for the set of a member."""
        while (parent := self._parent.get(member, member)) != member:
            member = parent
        return member

    def unite(self, one: int, other: int) -> None:
        """Make one set of two."""
        self._parent[self.find(one)] = self.find(other)
