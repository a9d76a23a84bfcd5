"""Which nodes compute in 16 bits, and why the others do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.narrow import Format
from onnxpress.passes.narrow import rules
from onnxpress.passes.narrow.kernels import Kernels
from onnxpress.passes.narrow.types import (
    Ports,
    Refused,
    is_indifferent,
    is_standard,
    ports,
    touches_float32,
)
from onnxpress.passes.report import Report
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import nodes

CARRIERS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split"}) | {
    "Expand",
    "Tile",
    "Gather",
    "Concat",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
}
"""What moves values without changing them, and so takes the type of what it moves."""

CHEAP = (
    CARRIERS
    | {"Add", "Sub", "Mul", "Div", "Sqrt", "Neg", "Abs", "Relu", "Clip", "Min", "Max", "Where"}
    | {"Cast", "Reciprocal", "ReduceMax", "ReduceMin", "Sum", "Log", "Erf", "Sigmoid", "Tanh"}
    | {"Floor", "Ceil", "Round", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"}
    | {"ConstantOfShape"}
)
"""Not worth Casts of their own."""

LAYERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention", "Gather"}
) | {"FusedConv", "FusedGemm", "FusedMatMul", "MultiHeadAttention"}
"""Where the work is, or the weights are: worth Casts of their own."""

_EXCLUDED = "excluded by the recipe"


@dataclass(slots=True)
class Plan:
    """What becomes of each node that reads or writes float32.

    Attributes:
        low: ports of the nodes that compute in 16 bits, by identity.
        kept: why the others compute in float32, by identity.
        either: nodes that read floats of any type.
        order: all of these nodes, in graph order.
    """

    low: dict[int, Ports] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)
    either: set[int] = field(default_factory=set)
    order: list[gs.Node] = field(default_factory=list)

    def keep(self, node: gs.Node, reason: str) -> None:
        """Let a node compute in float32, unless that is settled already."""
        if self.low.pop(id(node), None) is not None:
            self.kept[id(node)] = reason

    def tell(self, report: Report) -> None:
        """Report the nodes that stay float32, those alike in one line."""
        alike: dict[tuple[str, str], list[gs.Node]] = {}
        for node in self.order:
            if reason := self.kept.get(id(node)):
                alike.setdefault((str(node.op), reason), []).append(node)
        for (op, reason), found in alike.items():
            name = found[0].name or found[0].outputs[0].name
            more = f" and {len(found) - 1} more {op}" if len(found) > 1 else ""
            report.skip(f"{name}{more}", reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What decides on nodes besides the rules.

    Attributes:
        kind: the format.
        include: globs of names of nodes, of their weights, or of operators.
        exclude: the same; these stay float32.
        wide: reasons for nodes that must stay float32, by the name of their first output.
        barred: reasons for constants that cannot be narrow, by identity.
    """

    kind: Format
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    wide: Mapping[str, str] = field(default_factory=dict)
    barred: Mapping[int, str] = field(default_factory=dict)

    def takes(self, node: gs.Node) -> bool:
        """Whether the globs choose a node."""
        names = [node.name, str(node.op), *(t.name for t in node.inputs if isinstance(t, gs.Constant))]

        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatchcase(name, glob) for name in names for glob in globs)

        return matches(self.include) and not matches(self.exclude)


def make_plan(model: Model, shapes: Shapes, choice: Choice, kernels: Kernels) -> Plan:
    """Decide on every node of every graph.

    Args:
        model: in float32; its nodes are in order.
        shapes: the types of its tensors.
        choice: what the options and the samples say.
        kernels: what the provider can run.
    """
    plan = Plan()
    for _, node in nodes(model.graph):
        if not touches_float32(node, shapes) or node.domain == DECODING_DOMAIN:
            continue
        plan.order.append(node)
        if is_indifferent(node, shapes):
            plan.either.add(id(node))
            continue
        try:
            plan.low[id(node)] = _decide(node, model, shapes, choice, kernels)
        except Refused as refusal:
            plan.kept[id(node)] = str(refusal)
    _spread(plan, shapes, choice.kind)
    _fill_gaps(plan, shapes)
    return plan


def _decide(node: gs.Node, model: Model, shapes: Shapes, choice: Choice, kernels: Kernels) -> Ports:
    """The ports of a node.

    Raises:
        Refused: it computes in float32.
    """
    low = choice.kind.name
    if any(isinstance(each, gs.Graph) for each in node.attrs.values()):
        raise Refused("what goes into its graphs and comes out of them stays float32; the nodes inside are converted")
    if not choice.takes(node):
        raise Refused(_EXCLUDED)
    if reason := choice.wide.get(node.outputs[0].name):
        raise Refused(reason)
    if reason := rules.reason(node, choice.kind, shapes):
        raise Refused(reason)
    found = ports(node, low=low, opset=model.opset, shapes=shapes)
    barred = (choice.barred.get(id(node.inputs[i])) for i in found.inputs)
    if reason := next((each for each in barred if each), None):
        raise Refused(reason)
    if not kernels.has(node, found):
        raise Refused(f"the execution provider runs no {node.op} in {low}")
    return found


def _spread(plan: Plan, shapes: Shapes, kind: Format) -> None:
    """Keep what belongs to nodes that must stay float32: normalisations by a small epsilon, and what counts things."""
    for node in plan.order:
        if reason := rules.lost_constant(node, kind):
            plan.keep(node, reason)
            if node.op in rules.ADDING and is_standard(node):
                for each in rules.normalisation_of(node):
                    plan.keep(each, f"it is part of a normalisation in float32: {reason}")
        if rules.makes_whole(node, shapes):
            for each in rules.counted(node, shapes):
                plan.keep(each, "its result becomes a whole number, which rounding would change")


def _fill_gaps(plan: Plan, shapes: Shapes) -> None:
    """Keep what stands between nodes in float32, where Casts would cost more than 16 bits save."""
    reason = "stands between operators in float32; Casts around it would cost more than it saves"
    for group in _islands(plan):
        if not any(node.op in LAYERS for node in group) and any(_touches_wide(node, plan) for node in group):
            for node in group:
                plan.keep(node, reason)
    changed = True
    while changed:
        changed = False
        for node in plan.order:
            if id(node) not in plan.low or node.op not in CHEAP or not is_standard(node):
                continue
            readers = _readers_wide(node, plan)
            several = len({id(t) for t in _floats_read(node, shapes)}) > len(node.outputs)
            if _sources_wide(node, plan, shapes, inputs=readers) and (readers or several or node.op in CARRIERS):
                plan.keep(node, reason)
                changed = True


def _islands(plan: Plan) -> list[list[gs.Node]]:
    """The nodes in 16 bits, in groups that are linked by tensors in 16 bits."""
    group_of: dict[int, list[gs.Node]] = {}
    for node in plan.order:
        if id(node) not in plan.low:
            continue
        mine = [node]
        sources = (t.inputs[0] for i, t in enumerate(node.inputs) if t.inputs and i in plan.low[id(node)].inputs)
        for source in sources:
            other = group_of.get(id(source))
            if other is not None and other is not mine:
                small, mine = sorted((mine, other), key=len)
                mine.extend(small)
                group_of |= {id(each): mine for each in small}
        group_of[id(node)] = mine
    return list({id(group): group for group in group_of.values()}.values())


def _touches_wide(node: gs.Node, plan: Plan) -> bool:
    """Whether a node reads from one in float32, or is read by one."""
    near = [*(source for t in node.inputs for source in t.inputs), *(each for t in node.outputs for each in t.outputs)]
    return any(id(each) in plan.kept for each in near)


def _floats_read(node: gs.Node, shapes: Shapes) -> list[gs.Tensor]:
    """The variables of float32 that a node reads."""
    return [t for t in node.inputs if t.name and shapes.dtype(t) == np.float32 and not isinstance(t, gs.Constant)]


def _sources_wide(node: gs.Node, plan: Plan, shapes: Shapes, *, inputs: bool) -> bool:
    """Whether all floats that a node reads are made by nodes in float32, or are inputs of a graph if those count."""
    read = _floats_read(node, shapes)
    return bool(read) and all(id(t.inputs[0]) in plan.kept if t.inputs else inputs for t in read)


def _readers_wide(node: gs.Node, plan: Plan) -> bool:
    readers: Collection[gs.Node] = [reader for t in node.outputs for reader in t.outputs]
    return bool(readers) and all(id(reader) in plan.kept or id(reader) in plan.either for reader in readers)
