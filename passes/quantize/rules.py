"""Tables of rules: how each operator stands to codes, one table for each kind of runtime.

The table for CPUs lists what ONNX Runtime's own rewriting merges into an operator that computes on codes (its
`qdq_selector_action_transformer.cc`; the tests look at what it makes of each). What is not there computes in float:

- Softmax, LayerNormalization, Gelu and the like, which lose on codes or have no kernel for them.
- Sigmoid and HardSigmoid, and so what they are multiplied with. Both can be had on codes (a lookup; a sum that ends at
  0 and 1), but that pulls depthwise convolutions after them, which are slower on codes than in float (measured with
  VNNI on a MobileNetV3: 0.8 times as fast as float instead of 1.1). A table read by Gather takes three times as long
  as HardSwish in float.
- Products of two activations (attention): no faster (MiniLM with 9 tokens), or slower (6 to 9 % with 256).
- Split, whose parts would all need one scale; ConvTranspose, which has no kernel on codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Use
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import read


class Output(Enum):
    """Whether there must be codes behind an operator for it to run on codes."""

    ALWAYS = "always"
    IF_READ = "only where the next one reads codes"
    NEVER = "the next one decides"


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator stands to codes.

    Attributes:
        layer: it has a constant weight, and takes codes whatever comes before it.
        inputs: indices of the activations it reads as codes; None for all inputs; or what tells them of a node.
        output: whether it must give codes.
        shares: what it reads and gives has one scale, because values only move.
        joins: it takes codes whatever comes before it, although it has no weight; others only follow where codes come.
        refuse: why this one node cannot run on codes; None where it can.
    """

    layer: bool = False
    inputs: tuple[int, ...] | Callable[[gs.Node], tuple[int, ...]] | None = (0,)
    output: Output = Output.ALWAYS
    shares: bool = False
    joins: bool = False
    refuse: Callable[[gs.Node], str | None] = lambda node: None

    def activations(self, node: gs.Node) -> list[int]:
        """Indices of what a node reads as codes."""
        if callable(self.inputs):
            return list(self.inputs(node))
        return list(range(len(node.inputs)) if self.inputs is None else self.inputs)


Rules: TypeAlias = Mapping[str, Rule]
"""By standard operator."""

THIN = 64
"""Products summed into one output of a Conv below which it is thin (depthwise, or few input channels): turning its
output back into float costs more than 8-bit products save (measured on x86 with VNNI)."""

ABSORBED = ("Relu", "Clip")
"""Operators that vanish between another one and the codes behind it, because no code lies beyond their bounds."""

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QGemm")
_FUSED = ("DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "QAttention")


def is_thin(node: gs.Node) -> bool:
    """Whether a layer is worth codes only where its output is read as codes."""
    if node.op != "Conv" or not isinstance(node.inputs[1], gs.Constant):
        return False
    return int(np.prod(node.inputs[1].shape[1:])) < THIN


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


def _pair(node: gs.Node) -> str | None:
    constant = any(isinstance(tensor, gs.Constant) for tensor in node.inputs)
    return "one side is constant, which is cheap in float" if constant else None


def _moves(node: gs.Node) -> str | None:
    """A node that moves values as its constant inputs say."""
    return "it moves constants" if isinstance(node.inputs[0], gs.Constant) else None


def _resize(node: gs.Node) -> str | None:
    return None if node.attrs.get("mode", "nearest") == "nearest" else "it interpolates"


_MOVES = Rule(shares=True, refuse=_moves)

CPU: Rules = {
    "Conv": Rule(layer=True, refuse=_conv),
    "Gemm": Rule(layer=True, output=Output.IF_READ, refuse=_gemm),
    "MatMul": Rule(layer=True, output=Output.IF_READ, refuse=_matmul),
    "Add": Rule(inputs=(0, 1), refuse=_pair),
    "Mul": Rule(inputs=(0, 1), refuse=_pair),
    "GlobalAveragePool": Rule(),
    "AveragePool": Rule(),
    "LeakyRelu": Rule(),
    "Concat": Rule(inputs=None, shares=True),
    "MaxPool": Rule(shares=True),
    "Resize": Rule(shares=True, refuse=_resize),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"), _MOVES),
    **dict.fromkeys(("Slice", "Gather", "Expand", "Tile", "DepthToSpace"), _MOVES),
}
"""ONNX Runtime on CPUs."""


def _residual(node: gs.Node) -> tuple[int, ...]:
    """The branch of a residual Add that does not end in the layer that it fuses with."""
    fused = [index for index, tensor in enumerate(node.inputs) if _ends_in_layer(tensor)]
    return (1 - fused[-1],) if fused else (0, 1)


def _ends_in_layer(tensor: gs.Tensor) -> bool:
    source = tensor.inputs[0] if tensor.inputs else None
    return source is not None and source.op in ("Conv", "Gemm", "MatMul") and len(tensor.outputs) == 1


def _no_residual(node: gs.Node) -> str | None:
    if reason := _pair(node):
        return reason
    return None if any(_ends_in_layer(tensor) for tensor in node.inputs) else "neither side is a layer it fuses with"


TENSORRT: Rules = {
    "Conv": Rule(layer=True, output=Output.NEVER, refuse=_conv),
    "Gemm": Rule(layer=True, output=Output.NEVER, refuse=_gemm),
    "MatMul": Rule(layer=True, output=Output.NEVER, refuse=_matmul),
    "Add": Rule(inputs=_residual, output=Output.NEVER, joins=True, refuse=_no_residual),
}
"""TensorRT: codes stand before layers and before the other branch of a residual Add, never between a layer and what it
fuses with; TensorRT moves them over pools and the like itself (its guide, "Q/DQ layer-placement recommendations")."""


def _conv_transpose(node: gs.Node) -> str | None:
    return "its output channels lie in groups" if node.attrs.get("group", 1) != 1 else _conv(node)


NPU: Rules = {
    **{op: rule for op, rule in CPU.items() if rule.layer},
    "ConvTranspose": Rule(layer=True, refuse=_conv_transpose),
}
"""The layers of accelerators on which every tensor becomes codes."""

FOLLOWERS = (*dict.fromkeys(op for rules in (CPU, NPU, TENSORRT) for op in rules), "LSTM")
"""Operators that a caller may name."""


def rule_of(node: gs.Node, rules: Rules = CPU) -> Rule | None:
    """The rule of a node's operator; None where it has none."""
    return rules.get(str(node.op)) if is_standard(node) else None


def refusal(use: Use, *, rules: Rules = CPU, ops: Sequence[str] | None = None) -> str | None:
    """Why a node that uses a weight cannot be a layer on codes; None where it can."""
    node, rule = use.node, rule_of(use.node, rules)
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
    return sum(
        str(node.op) in (*_QUANTIZED, *_FUSED) or str(node.op).startswith("QLinear") for _, node in nodes(model.graph)
    )
