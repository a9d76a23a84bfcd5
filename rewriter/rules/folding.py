"""Nodes that compute the same in every run are computed once.

ONNX Runtime is the calculator, so a folded node gives what it would have given. Data movement on large weights
(Cast, Transpose, …) is not computed at all but promised, and done when the weight is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import output_ids, to_constant
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.evaluate import constant_model, evaluate
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Array, Dense, Produced, Values, values_of

logger = logging.getLogger(__name__)

LAZY = 1 << 20
"""Bytes from which data movement on a weight is promised instead of done."""
SMALL = 1 << 10
"""Bytes a folded result may always have."""
BATCH = 1 << 28
"""Bytes of constants evaluated at most."""

_STANDARD = (None, "", "ai.onnx")
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
# A quantized weight is stored small and meant to stay so; the others give no tensor.
_KEPT = {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "Dropout", "Constant"}
_NO_TENSOR = ("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence", "If", "Loop", "Scan")

_MOVES: dict[str, Callable[[Array, tuple[int, ...], np.dtype[Any], dict[str, Any]], Array]] = {
    "Identity": lambda x, shape, dtype, attrs: x,
    "Cast": lambda x, shape, dtype, attrs: x.astype(dtype),
    "Transpose": lambda x, shape, dtype, attrs: np.transpose(x, attrs.get("perm")),
    "Reshape": lambda x, shape, dtype, attrs: x.reshape(shape),
    "Squeeze": lambda x, shape, dtype, attrs: x.reshape(shape),
    "Unsqueeze": lambda x, shape, dtype, attrs: x.reshape(shape),
    "Flatten": lambda x, shape, dtype, attrs: x.reshape(shape),
}


@dataclass(slots=True)
class _Found:
    """Foldable nodes of one graph, in order, and the bytes of constants behind each tensor."""

    nodes: list[gs.Node] = field(default_factory=list)
    weight: dict[int, int] = field(default_factory=dict)


def fold_constants(model: Model, shapes: Shapes) -> Outcome:
    """Replace what depends on constants alone by its value, in every graph.

    A result much larger than what it is made of stays unfolded: the file would grow.
    """
    outcome = Outcome()
    outputs = output_ids(model)
    for graph in graphs(model.graph):
        moved = _promise_moves(graph, shapes, outputs)
        found = _find(graph, outputs)
        wanted = _frontier(found, shapes, outcome)
        folded = _evaluate(model, found, wanted)
        for tensor, array in folded:
            to_constant(graph, tensor, Dense(array))
        if moved or folded:
            outcome.counts["constant expressions became initializers"] += moved + len(folded)
    return outcome


def _promise_moves(graph: gs.Graph, shapes: Shapes, outputs: set[int]) -> int:
    """Large weights behind data movement -> promised weights."""
    count = 0
    for node in list(graph.nodes):
        move = _MOVES.get(node.op) if node.domain in _STANDARD else None
        if move is None or not all(isinstance(t, gs.Constant) for t in node.inputs if t.name):
            continue
        out = node.outputs[0]
        shape, dtype, before = shapes.static(out), shapes.dtype(out), values_of(node.inputs[0])
        if before.nbytes < LAZY or shape is None or dtype is None or id(out) in outputs or not _plain(before, dtype):
            continue
        attrs = dict(node.attrs)
        to_constant(graph, out, _moved(before, move, shape, dtype, attrs))
        count += 1
    return count


def _moved(
    before: Values, move: Callable[..., Array], shape: tuple[int, ...], dtype: np.dtype[Any], attrs: dict[str, Any]
) -> Produced:
    return Produced(shape, dtype, lambda: move(before.load(), shape, dtype, attrs))


def _plain(values: Values, dtype: np.dtype[Any]) -> bool:
    """Whether NumPy moves and casts the values as ONNX does; it does not saturate float8, nor know packed types."""
    return all(each.kind in "fiub" or each.name == "bfloat16" for each in (values.dtype, dtype))


def _find(graph: gs.Graph, outputs: set[int]) -> _Found:
    found = _Found()
    fixed = {id(t) for t in graph.inputs}
    constant = found.weight
    for node in graph.nodes:
        if node.domain not in _STANDARD or node.op in _RANDOM | _KEPT or node.op.startswith(_NO_TENSOR):
            continue
        if any(isinstance(a, gs.Graph | onnx.AttributeProto) for a in node.attrs.values()):
            continue
        sizes = []
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in fixed:
                sizes.append(values_of(tensor).nbytes)
            elif id(tensor) in constant:
                sizes.append(constant[id(tensor)])
            elif tensor.name:
                break
        else:
            if any(id(t) in outputs for t in node.outputs) or not any(t.name for t in node.inputs):
                continue
            found.nodes.append(node)
            constant.update((id(t), sum(sizes)) for t in node.outputs)
    return found


def _frontier(found: _Found, shapes: Shapes, outcome: Outcome) -> list[gs.Tensor]:
    """Results that other nodes read, less those that would make the file grow."""
    inside = {id(node) for node in found.nodes}
    wanted = []
    for node in found.nodes:
        for tensor in node.outputs:
            if not tensor.name or all(id(reader) in inside for reader in tensor.outputs):
                continue
            shape, dtype = shapes.static(tensor), shapes.dtype(tensor)
            size = SMALL if shape is None or dtype is None else int(np.prod(shape, dtype=object)) * dtype.itemsize
            # twice: a float16 weight behind a Cast to float32 must become a weight
            if size > max(SMALL, 2 * found.weight[id(tensor)]):
                outcome.left.append((node.name or tensor.name, f"not folded: {size:,} bytes would enter the file"))
            elif found.weight[id(tensor)] > BATCH:
                outcome.left.append((node.name or tensor.name, "not folded: its constants are too large to evaluate"))
            else:
                wanted.append(tensor)
    return wanted


def _evaluate(model: Model, found: _Found, wanted: Sequence[gs.Tensor]) -> list[tuple[gs.Tensor, Array]]:
    """Compute `wanted`, in one run; if ONNX Runtime refuses it, each in a run of its own."""
    if not wanted:
        return []
    try:
        return _run(model, found, wanted)
    except Exception as error:  # whatever ONNX Runtime cannot compute stays in the graph
        logger.info("not folded together: %s", error)
        if len(wanted) == 1:
            return []
    half = len(wanted) // 2
    return _evaluate(model, found, wanted[:half]) + _evaluate(model, found, wanted[half:])


def _run(model: Model, found: _Found, wanted: Sequence[gs.Tensor]) -> list[tuple[gs.Tensor, Array]]:
    nodes = _behind(found, wanted)
    constants = {id(t): t for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    if sum(values_of(c).nbytes for c in constants.values()) > BATCH:
        raise ModelError("too much to evaluate at once")
    return list(zip(wanted, evaluate(constant_model(model, nodes, wanted), optimise=False), strict=True))


def _behind(found: _Found, wanted: Sequence[gs.Tensor]) -> list[gs.Node]:
    """The foldable nodes that `wanted` depends on, in order."""
    needed = {id(t) for t in wanted}
    nodes = []
    for node in reversed(found.nodes):
        if any(id(t) in needed for t in node.outputs):
            nodes.append(node)
            needed |= {id(t) for t in node.inputs}
    return nodes[::-1]


def fold_shapes(model: Model, shapes: Shapes) -> Outcome:
    """`Shape` and what is picked from it -> constants, as far as the sizes are fixed."""
    outcome = Outcome()
    count = 0
    outputs = output_ids(model)
    for graph in graphs(model.graph):
        for node in [n for n in graph.nodes if n.op == "Shape" and n.domain in _STANDARD]:
            shape = shapes.shape(node.inputs[0])
            if shape is None:
                continue
            sizes = shape[slice(node.attrs.get("start"), node.attrs.get("end"))]
            count += _fold_sizes(graph, node.outputs[0], sizes, outputs)
    if count:
        outcome.counts["sizes that never change became constants"] += count
    return outcome


def _fold_sizes(graph: gs.Graph, tensor: gs.Variable, sizes: tuple[int | str | None, ...], outputs: set[int]) -> int:
    """Fold a tensor of sizes, or each Gather of fixed ones among them."""
    if all(isinstance(size, int) for size in sizes):
        if id(tensor) in outputs:
            return 0
        to_constant(graph, tensor, Dense(np.array(sizes, np.int64)))
        return 1
    count = 0
    for reader in list(tensor.outputs):
        if reader.op != "Gather" or reader.inputs[0] is not tensor or not isinstance(reader.inputs[1], gs.Constant):
            continue
        index = values_of(reader.inputs[1]).load()
        in_range = (index >= -len(sizes)) & (index < len(sizes))
        if not in_range.all() or all(n is not reader for n in graph.nodes) or id(reader.outputs[0]) in outputs:
            continue
        picked = [sizes[int(i)] for i in index.reshape(-1)]
        if all(isinstance(size, int) for size in picked):
            to_constant(graph, reader.outputs[0], Dense(np.array(picked, np.int64).reshape(index.shape)))
            count += 1
    return count
