"""Multiply-adds of a node, from the shapes around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from onnxpress.rewriter.shapes import Shape, Shapes


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds of one run.

    Attributes:
        count: with every dimension that is open counted as 1.
        open_dims: what was counted as 1; `?` for a dimension without a name.
    """

    count: int
    open_dims: frozenset[str] = frozenset()


def multiply_adds(node: gs.Node, shapes: Shapes, index: int | None = None) -> Cost | None:
    """What a node costs; None where a shape is unknown, 0 for ops that multiply no matrices.

    Args:
        node: of the main graph or a subgraph.
        shapes: of its tensors.
        index: count only what is multiplied with this input (a recurrent node has two weights); None counts all.
    """
    rule = _RULES.get(node.op)
    if rule is None:
        return Cost(0)
    known = [shapes.shape(tensor) if tensor.name else None for tensor in node.inputs]
    result = shapes.shape(node.outputs[0]) if node.outputs else None
    factors = rule(node, known, result, index)
    if factors is None or any(factor is None for factor in factors):
        return None
    return _product([size for factor in factors for size in factor or ()])


_Factors = list[Shape | None] | None
_Rule = Callable[[gs.Node, list[Shape | None], Shape | None, int | None], _Factors]


def _conv(weight: int) -> _Rule:
    def rule(node: gs.Node, known: list[Shape | None], result: Shape | None, index: int | None) -> _Factors:
        kernel = known[weight]
        return None if kernel is None else [result, kernel[1:]]

    return rule


def _conv_transpose(node: gs.Node, known: list[Shape | None], result: Shape | None, index: int | None) -> _Factors:
    kernel = known[1]
    return None if kernel is None else [known[0], kernel[1:]]


def _matmul(left: int) -> _Rule:
    def rule(node: gs.Node, known: list[Shape | None], result: Shape | None, index: int | None) -> _Factors:
        shape = known[left]
        if not shape:
            return None
        axis = -2 if node.attrs.get("transA", 0) and len(shape) > 1 else -1
        return [result, (shape[axis],)]

    return rule


def _recurrent(node: gs.Node, known: list[Shape | None], result: Shape | None, index: int | None) -> _Factors:
    sequence = known[0]
    if sequence is None or known[1] is None or known[2] is None:
        return None
    if index is not None:
        return [sequence[:2], known[index]]
    directions, gates, inside = known[1]
    hidden = known[2][2]
    if not isinstance(inside, int) or not isinstance(hidden, int):
        return None
    return [sequence[:2], (directions, gates, inside + hidden)]


_RULES: Mapping[str, _Rule] = {
    "Conv": _conv(1),
    "FusedConv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _matmul(0),
    "FusedGemm": _matmul(0),
    "MatMul": _matmul(0),
    "FusedMatMul": _matmul(0),
    "MatMulInteger": _matmul(0),
    "QLinearMatMul": _matmul(0),
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def _product(sizes: list[int | str | None]) -> Cost:
    open_dims = frozenset(str(size or "?") for size in sizes if not isinstance(size, int))
    return Cost(prod(size for size in sizes if isinstance(size, int)), open_dims)
