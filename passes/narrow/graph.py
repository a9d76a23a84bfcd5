"""Rewrites a graph so that the nodes of a plan compute in 16 bits, with Casts where the types of two nodes differ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.narrow.plan import Plan
from onnxpress.passes.narrow.types import ELEMENT_TYPES, FLOAT, is_standard
from onnxpress.passes.narrow.weights import Narrowing
from onnxpress.rewriter.edits import add_node, redirect, set_input, set_output
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs, nodes
from onnxpress.rewriter.weights import Dense, values_of


@dataclass(slots=True)
class Rewrite:
    """The rewriting of one model.

    Attributes:
        model: is rewritten.
        shapes: its types before.
        plan: which nodes compute in 16 bits.
        narrowing: how its constants become 16 bits.
        keep_io: the inputs and outputs of the graph stay float32.
        weights: the constants that became narrow: before and after, by the identity of the former.
        casts: number of Casts that were added.
    """

    model: Model
    shapes: Shapes
    plan: Plan
    narrowing: Narrowing
    keep_io: bool
    weights: dict[int, tuple[gs.Constant, gs.Constant]] = field(default_factory=dict)
    casts: int = 0
    _low: dict[int, gs.Tensor] = field(default_factory=dict)
    _cast: dict[tuple[int, bool], tuple[gs.Tensor, gs.Tensor]] = field(default_factory=dict)
    _homes: dict[int, gs.Graph] = field(default_factory=dict)

    def run(self) -> None:
        """Rewrite; dead nodes are left for the next sweep, which also puts the Casts in their places."""
        places = list(nodes(self.model.graph))
        self._homes = {id(node): graph for graph, node in places}
        self._homes |= {id(t): graph for graph in graphs(self.model.graph) for t in graph.inputs}
        for _, node in places:
            if id(node) in self.plan.low:
                self._retype(node)
        if not self.keep_io:
            for tensor in self.model.graph.inputs:
                if isinstance(tensor, gs.Variable) and self.shapes.dtype(tensor) == np.float32:
                    self._mark(tensor)
        for graph in graphs(self.model.graph):
            for tensor in list(graph.outputs):
                self._border(tensor, low=graph is self.model.graph and not self.keep_io)
        for _, node in places:
            self._feed(node)
        for graph, node in places:
            self._drop(graph, node)

    def _retype(self, node: gs.Node) -> None:
        """Let a node give 16 bits; what reads them is seen to later."""
        for index in self.plan.low[id(node)].outputs:
            self._mark(node.outputs[index])
        if not is_standard(node):
            return
        if node.op == "Cast":
            node.attrs["to"] = self._element
        elif node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            old = values_of(value) if isinstance(value, gs.Constant) else Dense(np.zeros(1, np.float32))
            node.attrs["value"] = gs.Constant("", self.narrowing.values(old))

    def _mark(self, tensor: gs.Tensor) -> None:
        self._low[id(tensor)] = tensor
        if tensor.dtype is not None:
            tensor.dtype = self.narrowing.kind.dtype

    def _border(self, tensor: gs.Tensor, *, low: bool) -> None:
        """Give an output of a graph the type that its readers outside expect, under its own name."""
        if (id(tensor) in self._low) == low or not tensor.inputs or self.shapes.dtype(tensor) != np.float32:
            return
        producer = tensor.inputs[0]
        inner = gs.Variable(self.model.names.fresh(f"{tensor.name}_inner"))
        set_output(producer, next(i for i, t in enumerate(producer.outputs) if t is tensor), inner)
        for reader in list(tensor.outputs):
            for index, each in enumerate(reader.inputs):
                if each is tensor:
                    set_input(reader, index, inner)
        if low:
            self.shapes.known[id(inner)] = (inner, np.dtype(np.float32), self.shapes.shape(tensor))
            self._mark(tensor)
        else:
            self._low[id(inner)] = inner
            del self._low[id(tensor)]
            tensor.dtype = np.dtype(np.float32) if tensor.dtype is not None else None
        self._cast[id(inner), low] = (inner, tensor)
        self._add_cast(self._homes[id(producer)], inner, low=low, output=tensor)

    def _feed(self, node: gs.Node) -> None:
        """Give a node inputs of the types it wants."""
        if id(node) in self.plan.either:
            return
        ports = self.plan.low.get(id(node))
        for index, tensor in enumerate(node.inputs):
            if not tensor.name:
                continue
            is_low = id(tensor) in self._low
            if ports is not None and index in ports.inputs:
                if not is_low and self.shapes.dtype(tensor) == np.float32:
                    set_input(node, index, self._as(tensor, low=True))
            elif is_low:
                set_input(node, index, self._as(tensor, low=False))

    def _as(self, tensor: gs.Tensor, *, low: bool) -> gs.Tensor:
        """A tensor in the other type; cast once for all that read it."""
        key = (id(tensor), low)
        if isinstance(tensor, gs.Constant) and id(tensor) not in self._homes:  # no caller may override it
            return self._narrow_constant(tensor)
        if key not in self._cast:
            home = self._homes.get(id(tensor)) or self._homes[id(tensor.inputs[0])]
            self._cast[key] = (tensor, self._add_cast(home, tensor, low=low))
        return self._cast[key][1]

    def _narrow_constant(self, constant: gs.Constant) -> gs.Constant:
        if id(constant) not in self.weights:
            held = self.narrowing.values(values_of(constant))
            self.weights[id(constant)] = (constant, self.model.add_weight(f"{constant.name}_low", held))
        return self.weights[id(constant)][1]

    def _add_cast(self, graph: gs.Graph, tensor: gs.Tensor, *, low: bool, output: gs.Tensor | None = None) -> gs.Tensor:
        self.casts += 1
        attrs: dict[str, object] = {"to": self._element if low else FLOAT}
        outputs = [output] if output is not None else None
        return add_node(self.model, graph, "Cast", [tensor], hint="cast", attrs=attrs, outputs=outputs)

    def _drop(self, graph: gs.Graph, node: gs.Node) -> None:
        """Remove a Cast of the model's own that has nothing left to do."""
        if id(node) not in self.plan.low or node.op != "Cast" or not node.inputs or not is_standard(node):
            return
        source = node.inputs[0]
        known = self.shapes.dtype(source)
        if id(source) in self._low or known == self.narrowing.kind.dtype:
            redirect(self.model, graph, node.outputs[0], source)

    @property
    def _element(self) -> int:
        return ELEMENT_TYPES[self.narrowing.kind.name]
