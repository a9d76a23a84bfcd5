"""Which ranks tensors may have where the branches of an If disagree: what would fail later cannot have been chosen.

Exporters write `squeeze` of a dynamic axis as an If whose branches give different ranks. Most combinations of branches
would fail at a node further on; what the others have in common is known after all.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxpress.rewriter.extents import option
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import read


@dataclass(frozen=True, slots=True)
class Ranks:
    """What only some choices of branches allow, by the identity of tensors; anything where there is no entry.

    Attributes:
        ranks: that a tensor may have.
        choices: the branches that may run for a condition: 1 stands for then, 0 for else.
    """

    ranks: dict[int, frozenset[int]] = field(default_factory=dict)
    choices: dict[int, frozenset[int]] = field(default_factory=dict)


_Known = ChainMap[tuple[str, int], frozenset[int]]
"""What is possible: ("rank", identity of a tensor): its ranks; ("branch", identity of a condition): 1 then, 0 else.

A branch writes into a mapping of its own, before those of the graphs around it.
"""

ROUNDS = 8
"""Sweeps at most; each settles one more If in a chain of them."""

FIXED: Mapping[str, Mapping[int, int]] = {
    **{op: {0: 3, 5: 3, 6: 3} for op in ("LSTM", "GRU", "RNN")},
    "Gemm": {0: 2, 1: 2},
}
"""Ranks that inputs must have."""

SAME = frozenset(
    {
        *("Abs", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
        *("Identity", "LeakyRelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softmax"),
        *("Softplus", "Softsign", "Sqrt", "Tanh", "Transpose"),
    }
)
"""Operators whose output has the rank of their input."""


class _ContradictionError(Exception):
    """No rank is left: this cannot run."""


def infer_ranks(model: Model, shapes: Shapes) -> Ranks:
    """Ranks of the tensors that inference left open and that only some choices of branches allow."""
    known: _Known = ChainMap()
    if not any(node.op == "If" for node in model.graph.nodes):
        return Ranks()
    try:
        for _ in range(ROUNDS):
            before = dict(known)
            _sweep(model.graph, known, shapes)
            if known == before:
                break
    except _ContradictionError:  # it cannot run at all; that is not ours to say
        return Ranks()
    ranks, choices = ({key: each for (said, key), each in known.items() if said == kind} for kind in ("rank", "branch"))
    return Ranks(ranks, choices)


def _sweep(graph: gs.Graph, known: _Known, shapes: Shapes) -> None:
    for node in [*graph.nodes, *reversed(graph.nodes)]:
        if node.op == "If":
            _choose(node, known, shapes)
        elif node.domain in (None, "", "ai.onnx"):
            _node(node, known, shapes)


def _node(node: gs.Node, known: _Known, shapes: Shapes) -> None:
    for index, rank in FIXED.get(node.op, {}).items():
        if index < len(node.inputs) and node.inputs[index].name:
            _narrow(node.inputs[index], {rank}, known, shapes)
    if node.op == "Conv" and node.inputs[1].shape is not None:
        _narrow(node.inputs[0], {len(node.inputs[1].shape)}, known, shapes)
    step = _step(node, shapes)
    if step is None:
        return
    source, result = node.inputs[0], node.outputs[0]
    below, above = _possible(source, known, shapes), _possible(result, known, shapes)
    if below is not None:
        _narrow(result, {rank + step for rank in below}, known, shapes)
    if above is not None:
        _narrow(source, {rank - step for rank in above}, known, shapes)


def _step(node: gs.Node, shapes: Shapes) -> int | None:
    """By how much the rank of the output is above that of the input."""
    if node.op in SAME:
        return 0
    axes = option(node, "axes", 1, shapes) if node.op in ("Squeeze", "Unsqueeze") else None
    if axes is None:
        return None
    return len(axes) if node.op == "Unsqueeze" else -len(axes)


def _choose(node: gs.Node, known: _Known, shapes: Shapes) -> None:
    """Keep what the branches that can run have in common, and what is said of tensors inside of each branch."""
    condition = node.inputs[0]
    may_run = _choices(condition, known, shapes)
    outcomes: dict[int, tuple[gs.Graph, _Known]] = {}
    for choice, branch in ((1, node.attrs["then_branch"]), (0, node.attrs["else_branch"])):
        trial = known.new_child({("branch", id(condition)): frozenset({choice})})
        try:
            for outer, inner in zip(node.outputs, branch.outputs, strict=True):
                possible = _possible(outer, known, shapes)
                if possible is not None:
                    _narrow(inner, possible, trial, shapes)
            _sweep(branch, trial, shapes)
        except _ContradictionError:
            continue
        own = {id(tensor) for _, each in nodes(branch) for tensor in each.outputs}
        known.update({key: each for key, each in trial.maps[0].items() if key[1] in own})
        if choice in may_run:
            outcomes[choice] = branch, trial
    if not outcomes:
        raise _ContradictionError
    trials = [trial for _, trial in outcomes.values()]
    shared = {key for trial in trials for key in trial.maps[0] if all(key in each for each in trials)}
    known.update({key: frozenset[int]().union(*(trial[key] for trial in trials)) for key in shared})
    known["branch", id(condition)] = frozenset(outcomes)
    for index, outer in enumerate(node.outputs):
        found = [_possible(branch.outputs[index], trial, shapes) for branch, trial in outcomes.values()]
        if all(each is not None for each in found):
            _narrow(outer, {rank for each in found if each is not None for rank in each}, known, shapes)


def _choices(condition: gs.Tensor, known: _Known, shapes: Shapes) -> frozenset[int]:
    """The branches that may run: 1 stands for then, 0 for else."""
    if isinstance(condition, gs.Constant) and id(condition) not in shapes.defaults:
        return frozenset({int(bool(read(condition).all()))})
    return known.get(("branch", id(condition)), frozenset({0, 1}))


def _possible(tensor: gs.Tensor, known: _Known, shapes: Shapes) -> frozenset[int] | None:
    shape = shapes.shape(tensor)
    return known.get(("rank", id(tensor))) if shape is None else frozenset({len(shape)})


def _narrow(tensor: gs.Tensor, allowed: Iterable[int], known: _Known, shapes: Shapes) -> None:
    old = _possible(tensor, known, shapes)
    left = frozenset(allowed) if old is None else old & frozenset(allowed)
    if not left:
        raise _ContradictionError
    if shapes.shape(tensor) is None:
        known["rank", id(tensor)] = left
