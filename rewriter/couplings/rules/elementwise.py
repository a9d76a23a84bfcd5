"""Operators that work on each element by itself, with or without broadcasting."""

from __future__ import annotations

from onnxpress.rewriter.couplings.links import Links, Rule

# fmt: off
_UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
_BROADCAST = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)
# fmt: on


def link_unary(links: Links) -> None:
    """X -> every output, of X's shape (Dropout has a mask too); further inputs are scalars."""
    x = links.input(0)
    if x is None:
        return
    for y in links.node.outputs:
        if y.name:
            links.same(x, y)


def link_cast_like(links: Links) -> None:
    """X -> Y; of the other input only the type matters."""
    x, like, y = links.input(0), links.input(1), links.output(0)
    if x is None or like is None or y is None:
        return
    links.same(x, y)
    for axis in range(links.rank(like)):
        links.leave((like, axis))


def link_broadcast(links: Links) -> None:
    """Any number of inputs, aligned at the last axis -> Y."""
    y = links.output(0)
    if y is None:
        return
    # before opset 7, a smaller operand was aligned by attributes, and a slope with the channels
    if links.model.opset < 7 and len({links.rank(t) for t in [*links.node.inputs, y]}) > 1:
        links.refuse("opset 6 and older align operands in another way: convert the model to a newer opset")
        return
    rank = links.rank(y)
    operands = [t for t in links.node.inputs if t.name]
    for axis in range(rank):
        behind = rank - axis
        aligned = [(t, links.rank(t) - behind) for t in operands if links.rank(t) >= behind]
        links.broadcast(aligned, (y, axis))


def link_quantize(links: Links) -> None:
    """X, scale, zero point -> Y; scale and zero point for all elements, for each slice of an axis, or for blocks."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    axis = int(links.node.attrs.get("axis", 1))  # of no meaning where there is one scale for all
    for operand in (links.input(1), links.input(2)):
        if operand is None:
            continue
        if links.rank(operand) == 1 and rank > 0 and links.size(operand, 0) != 1:
            links.tie((operand, 0), (x, links.axis(x, axis)))
        elif links.rank(operand) == 1:
            links.leave((operand, 0))
        elif links.rank(operand) == rank:
            links.same(operand, x, but=[axis])
            links.keep((x, axis), f"{links.title} has one scale for a block of axis {links.axis(x, axis)}")
    links.same(x, y)


RULES = {
    **{("", op): Rule(link_unary) for op in _UNARY},
    **{("", op): Rule(link_broadcast) for op in _BROADCAST},
    ("", "CastLike"): Rule(link_cast_like),
    ("", "QuantizeLinear"): Rule(link_quantize),
    ("", "DequantizeLinear"): Rule(link_quantize),
}
