"""Residual branches: what stands beside a shortcut, y = x + f(x), and can go, so that y = x is left.

A branch is everything that only its join needs. It can go where the other operand of the join carries on what the
branch reads (x itself, a projection of it, or what both come from), and has the shape of the sum. Branches inside of
branches are found, too. Gates, y = x · g(x) with one number a channel, are branches whose join is a product.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.prune.blocks.branch import Branch, Refused
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.walk import nodes


def find_branches(model: Model, shapes: Shapes, *, gates: bool = False) -> tuple[list[Branch], list[Refused]]:
    """All branches of the main graph, in graph order, and the joins that have none.

    Args:
        model: normalised, so that Add and Mul are what they were in training.
        shapes: of its tensors.
        gates: look for gates, too.
    """
    plan = _Plan(model, shapes)
    found: list[Branch] = []
    refused: list[Refused] = []
    for join in model.graph.nodes:
        if not _joins(join, gates=gates):
            continue
        reasons = []
        for index in plan.operands(join):
            try:
                found.append(plan.branch(join, index, taken={each.name for each in found}))
            except RefusalError as refusal:
                reasons.append(str(refusal))
        if reasons and all(each.join is not join for each in found[-2:]):
            refused.append(Refused(join.name or join.outputs[0].name, "; ".join(dict.fromkeys(reasons))))
    order = {id(node): number for number, node in enumerate(model.graph.nodes)}
    return sorted(found, key=lambda each: order[id(each.sites[0].node)]), refused


def _joins(node: gs.Node, *, gates: bool) -> bool:
    """Whether a node adds, or multiplies, two activations."""
    ops = ("Add", "Sum", "Mul") if gates else ("Add", "Sum")
    if node.op not in ops or (node.domain or "") not in DEFAULT_DOMAINS or len(node.inputs) != 2:
        return False
    return node.inputs[0] is not node.inputs[1] and not any(isinstance(each, gs.Constant) for each in node.inputs)


class _Plan:
    """The main graph, seen from its joins."""

    def __init__(self, model: Model, shapes: Shapes) -> None:
        self._graph, self._shapes = model.graph, shapes
        self._outputs = output_ids(model)
        self._sites = find_sites(model)
        self._order = {id(node): number for number, node in enumerate(model.graph.nodes)}
        self._reads: list[list[gs.Tensor]] = [[] for _ in model.graph.nodes]
        for number, node in enumerate(model.graph.nodes):
            self._reads[number].extend(node.inputs)
            for _, inner in _inside(node):
                self._order[id(inner)] = number  # what a subgraph reads, its node reads
                self._reads[number].extend(inner.inputs)

    @cached_property
    def _linear(self) -> dict[int, list[Site]]:
        """Linear layers by the number of their first node; embeddings are none."""
        found: dict[int, list[Site]] = {}
        for site in self._sites:
            if any(use.node.op != "Gather" for use in site.uses):
                found.setdefault(self._order[id(site.node)], []).append(site)
        return found

    def operands(self, join: gs.Node) -> tuple[int, ...]:
        """Which operands may be branches: both of a sum, the gate of a product."""
        if join.op != "Mul":
            return 0, 1
        return tuple(index for index in (0, 1) if self._is_gate(join.inputs[index], join.inputs[1 - index]))

    def branch(self, join: gs.Node, index: int, *, taken: set[str]) -> Branch:
        """The branch that ends in an operand.

        Raises:
            RefusalError: there is none that can go.
        """
        operand, kept = join.inputs[index], join.inputs[1 - index]
        numbers = self._cone(join, operand)
        sites = [site for number in numbers for site in self._linear.get(number, ())]
        if not sites:
            raise RefusalError(f"no linear layer serves '{operand.name}' alone")
        self._check_shortcut(set(numbers), operand, kept)
        certain = self._fits(join, kept)
        chosen = tuple(self._graph.nodes[number] for number in numbers)
        name = sites[0].name if sites[0].name not in taken else f"{sites[0].name}:{join.name or operand.name}"
        return Branch(
            name,
            join,
            index,
            nodes=chosen,
            sites=tuple(sites),
            constants=_own(chosen, self._outputs),
            axis=self._axis(operand, sites[-1]),
            dtype=self._shapes.dtype(operand) or np.dtype(np.float32),
            certain=certain,
        )

    def _axis(self, operand: gs.Tensor, last: Site) -> int:
        """Along which axis the channels of an operand lie: as the last linear layer has them."""
        rank = len(self._shapes.shape(operand) or ())
        return 1 if "Conv" in last.op and (rank == 0 or rank > 2) else -1

    def _cone(self, join: gs.Node, operand: gs.Tensor) -> list[int]:
        """Numbers of the nodes that nothing needs but one operand of a join, ascending."""
        end, cone = self._order[id(join)], set[int]()

        def alone(tensor: gs.Tensor) -> bool:
            readers = {self._order.get(id(reader), -1) for reader in tensor.outputs} - cone
            return id(tensor) not in self._outputs and readers <= ({end} if tensor is operand else set())

        waiting = [-number for number in self._producers(operand)]
        while waiting:  # the last first: whoever reads a node has been looked at before it
            number = -heapq.heappop(waiting)
            if number in cone or not all(map(alone, self._graph.nodes[number].outputs)):
                continue
            cone.add(number)
            sources = {each for tensor in self._reads[number] for each in self._producers(tensor)}
            for source in sources:
                heapq.heappush(waiting, -source)
        return sorted(cone)

    def _producers(self, tensor: gs.Tensor) -> list[int]:
        return [self._order[id(node)] for node in tensor.inputs if id(node) in self._order]

    def _check_shortcut(self, cone: set[int], operand: gs.Tensor, kept: gs.Tensor) -> None:
        """Refuse a branch beside which nothing carries on what it reads, or that holds the shortcut itself."""
        behind = self._ancestors([kept])
        read = [each for number in cone for each in self._reads[number] if self._comes_in(each, cone)]
        if not any(id(each) in behind for each in read) and id(kept) not in self._ancestors(read):
            raise RefusalError(f"'{kept.name}' does not come from what '{operand.name}' is computed from")
        direct = {id(each) for each in self._without_layers(cone, operand)}
        if any(id(each) in direct and id(each) in behind for each in read):
            raise RefusalError(f"'{operand.name}' is the shortcut itself")

    def _comes_in(self, tensor: gs.Tensor, cone: set[int]) -> bool:
        """Whether a branch reads an activation from outside; shapes are none."""
        if isinstance(tensor, gs.Constant) or not tensor.name or any(each in cone for each in self._producers(tensor)):
            return False
        dtype = self._shapes.dtype(tensor)
        return dtype is None or dtype.kind not in "iub"

    def _ancestors(self, tensors: Sequence[gs.Tensor]) -> dict[int, gs.Tensor]:
        """Tensors and all they are computed from, by identity."""
        found, waiting = {id(each): each for each in tensors}, list(tensors)
        while waiting:
            for number in self._producers(waiting.pop()):
                for each in self._reads[number]:
                    if id(each) not in found:
                        found[id(each)] = each
                        waiting.append(each)
        return found

    def _without_layers(self, cone: set[int], operand: gs.Tensor) -> Iterator[gs.Tensor]:
        """What reaches an operand without passing a linear layer."""
        seen, waiting = {id(operand)}, [operand]
        while waiting:
            tensor = waiting.pop()
            yield tensor
            for number in self._producers(tensor):
                if number not in cone or number in self._layers:
                    continue
                for each in self._reads[number]:
                    if id(each) not in seen:
                        seen.add(id(each))
                        waiting.append(each)

    @cached_property
    def _layers(self) -> set[int]:
        """Numbers of all nodes with weights."""
        return {self._order[id(use.node)] for site in self._sites for use in site.uses}

    def _fits(self, join: gs.Node, kept: gs.Tensor) -> bool:
        """Whether the result is known to have the shape of what stays.

        Raises:
            RefusalError: it has not.
        """
        old, new = self._shapes.shape(join.outputs[0]), self._shapes.shape(kept)
        if old is None or new is None:
            return False
        fixed = [(a, b) for a, b in zip(old, new, strict=False) if isinstance(a, int) and isinstance(b, int)]
        if len(old) != len(new) or any(a != b for a, b in fixed):
            raise RefusalError(f"'{kept.name}' {_text(new)} is smaller than the result {_text(old)}")
        return all(a is not None and a == b for a, b in zip(old, new, strict=True))

    def _is_gate(self, gate: gs.Tensor, whole: gs.Tensor) -> bool:
        """Whether a factor is one number a channel."""
        shape, other = self._shapes.shape(gate), self._shapes.shape(whole)
        if not shape or other is None or len(shape) != len(other) or shape[1:] == other[1:]:
            return False
        sizes = [size for size in shape[1:] if isinstance(size, int)]
        return len(sizes) == len(shape) - 1 and prod(sizes) == max(sizes, default=0)


def _inside(node: gs.Node) -> Iterator[tuple[gs.Graph, gs.Node]]:
    for inner in node.attrs.values():
        if isinstance(inner, gs.Graph):
            yield from nodes(inner)


def _own(chosen: Sequence[gs.Node], outputs: set[int]) -> tuple[gs.Constant, ...]:
    """The constants that only some nodes read."""
    own = {id(node) for node in chosen}
    read = {id(each): each for node in chosen for each in node.inputs if isinstance(each, gs.Constant)}
    return tuple(
        each for key, each in read.items() if key not in outputs and all(id(node) in own for node in each.outputs)
    )


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
