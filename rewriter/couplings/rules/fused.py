"""Operators of com.microsoft, into which ONNX Runtime and exporters fuse what stands in other files."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Links, Rule
from onnxpress.rewriter.couplings.rules.elementwise import link_unary
from onnxpress.rewriter.couplings.rules.linear import amend_conv, link_conv, link_gemm

QUANTIZED = "its weights are quantized: prune the float model before it is quantized"


def link_biased(links: Links) -> None:
    """X […, C] and an optional bias [C] -> Y, element by element."""
    x, bias = links.input(0), links.input(1)
    link_unary(links)
    if x is not None and bias is not None:
        links.tie((bias, 0), (x, links.rank(x) - 1))


def link_fused_conv(links: Links) -> None:
    """Conv, then the sum with Z, then an activation."""
    z, y = links.input(3), links.output(0)
    link_conv(links)
    if z is not None and y is not None:
        links.tie((z, 0), (y, 0))
        links.broadcast([(z, 1)], (y, 1))


def link_fused_matmul(links: Links) -> None:
    """A […, M, K] · B […, K, N], either transposed in its last two axes -> Y […, M, N]."""
    a, b, y = links.input(0), links.input(1), links.output(0)
    if a is None or b is None or y is None:
        return
    flags = [int(links.node.attrs.get(name, 0)) for name in ("transA", "transB", "transBatchA", "transBatchB")]
    left, right, rank = links.rank(a), links.rank(b), links.rank(y)
    if any(flags[2:]) or min(left, right) < 2:
        links.refuse("it moves axes of the batch")
        return
    rows, summed = (left - 1, left - 2) if flags[0] else (left - 2, left - 1)
    columns, other = (right - 2, right - 1) if flags[1] else (right - 1, right - 2)
    links.contract((a, summed), (b, other))
    links.tie((a, rows), (y, rank - 2))
    links.tie((b, columns), (y, rank - 1))
    for axis in range(rank - 2):
        ends = [(t, axis - rank + r) for t, r in ((a, left), (b, right)) if axis - rank + r >= 0]
        links.broadcast(ends, (y, axis))


def link_skip_norm(links: Links) -> None:
    """X, skip, scale, (bias), bias before -> Y, mean, deviation, sum of X and skip; the last axis is normalised."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    last = links.rank(x) - 1
    links.same(x, y)
    links.keep((x, last), f"{links.title} looks at axis {last} as a whole: mean and variance would change")
    for tensor in [*links.node.inputs[1:], links.output(3)]:
        if tensor is not None and tensor.name:
            _align(links, tensor, y)
    for tensor in (links.output(1), links.output(2)):
        if tensor is not None:
            links.same(x, tensor, but=[last])


def _align(links: Links, operand: gs.Tensor, y: gs.Tensor) -> None:
    """Tie the axes of an operand that is broadcast against `y`."""
    offset = links.rank(y) - links.rank(operand)
    for axis in range(links.rank(operand)):
        links.broadcast([(operand, axis)], (y, axis + offset))


def _frozen(reason: str) -> Rule:
    return Rule(lambda links: links.refuse(reason), partial=True)


_QUANTIZED = (
    *("QAttention", "MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QEmbedLayerNormalization"),
    *("QLinearConv", "QMoE", "QOrderedMatMul", "QOrderedAttention", "QOrderedLayerNormalization"),
)
_EMBEDDING = "rows of its tables are picked by number, and their sum is normalised"

RULES = {
    **{("com.microsoft", op): Rule(link_biased) for op in ("BiasGelu", "BiasAdd", "FastGelu")},
    **{("com.microsoft", op): Rule(link_unary) for op in ("Gelu", "QuickGelu")},
    ("com.microsoft", "FusedConv"): Rule(link_fused_conv, amend_conv),
    ("com.microsoft", "FusedGemm"): Rule(link_gemm),
    ("com.microsoft", "FusedMatMul"): Rule(link_fused_matmul),
    **{
        ("com.microsoft", op): Rule(link_skip_norm)
        for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
    ("com.microsoft", "EmbedLayerNormalization"): _frozen(_EMBEDDING),
    **{("com.microsoft", op): _frozen(QUANTIZED) for op in _QUANTIZED},
    **{("", op): _frozen(QUANTIZED) for op in ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")},
}
