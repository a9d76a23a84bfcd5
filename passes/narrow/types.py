"""Which inputs and outputs of a node ONNX allows in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.calibration.cut import cut, read_model
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import Shapes, infer_shapes

FLOAT = int(onnx.TensorProto.FLOAT)

OF_ONE_TYPE = (
    frozenset({"Attention", "BiasGelu", "BiasAdd", "BiasSplitGelu", "FastGelu", "FusedConv"})
    | {"FusedGemm", "FusedMatMul", "Gelu", "GroupNorm", "MultiHeadAttention", "QuickGelu"}
    | {"RotaryEmbedding", "SkipGroupNorm", "TransposeMatMul", "NhwcConv", "Rfft", "Irfft"}
)
"""Operators of `com.microsoft` whose floating-point inputs and outputs are all of the same type."""

INDIFFERENT = frozenset(["Shape", "Size", "Cast", "IsNaN", "IsInf", "NonZero"])
"""What gives the same in any floating-point type; Cast only where it gives no such type itself."""

_ANY_OUTPUT = frozenset(["Cast", "ConstantOfShape"])
"""What gives the type that an attribute names, and is rewritten to name another."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The float32 inputs and outputs of a node that are 16 bits where it computes in 16 bits, by position."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


class Refused(Exception):
    """A node that cannot compute in 16 bits; the text is the reason."""


def is_standard(node: gs.Node) -> bool:
    """Whether a node's operator is one of ONNX's own."""
    return (node.domain or "") in DEFAULT_DOMAINS


def ports(node: gs.Node, *, low: str, opset: int, shapes: Shapes) -> Ports:
    """Find the inputs and outputs that may be narrow.

    Args:
        node: that reads or writes float32.
        low: `float16` or `bfloat16`.
        opset: of the model.
        shapes: with the types of all tensors.

    Raises:
        Refused: ONNX does not allow it.
    """
    if not _mixes_sequences(node) and any(t.name and shapes.dtype(t) is None for t in [*node.inputs, *node.outputs]):
        raise Refused("nobody can tell the types of all that it reads and writes; normalise first")
    wide_in = [i for i, t in enumerate(node.inputs) if t.name and shapes.dtype(t) == np.float32]
    wide_out = [i for i, t in enumerate(node.outputs) if t.name and shapes.dtype(t) == np.float32]
    if _mixes_sequences(node):
        raise Refused("sequences and optional values keep the type of what they hold")
    if not is_standard(node):
        if node.domain == "com.microsoft" and node.op in OF_ONE_TYPE:
            return Ports(frozenset(wide_in), frozenset(wide_out))
        raise Refused(f"operators of {node.domain} are not known to take {low}")
    if not onnx.defs.has(node.op, opset, ""):
        raise Refused(f"ONNX has no {node.op} at opset {opset}; normalise first, which writes local functions out")
    schema = onnx.defs.get_schema(node.op, opset, "")
    allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
    inputs, outputs = list(_formal(schema.inputs, wide_in)), list(_formal(schema.outputs, wide_out))
    taken = {var for _, var in inputs if f"tensor({low})" in allowed.get(var, ())}
    if node.op in _ANY_OUTPUT and f"tensor({low})" in allowed.get(schema.outputs[0].type_str, ()):
        return Ports(frozenset(wide_in), frozenset(wide_out))
    if not taken or ("dtype" in schema.attributes and wide_out):
        raise Refused(_not_allowed(node, low, opset))
    if any(var not in taken and var in allowed for _, var in inputs) and node.op not in ("Resize", "Dropout"):
        raise Refused(_not_allowed(node, low, opset))
    return Ports(frozenset(i for i, var in inputs if var in taken), frozenset(i for i, var in outputs if var in taken))


def _not_allowed(node: gs.Node, low: str, opset: int) -> str:
    return f"ONNX has no {node.op} in {low} at opset {opset}"


def _formal(
    formals: Sequence[onnx.defs.OpSchema.FormalParameter], positions: Sequence[int]
) -> Iterator[tuple[int, str]]:
    """Position and type variable of actual parameters; the last formal one may stand for many."""
    for position in positions:
        yield position, formals[min(position, len(formals) - 1)].type_str


def _mixes_sequences(node: gs.Node) -> bool:
    """Whether a node puts tensors into sequences or optional values, or takes them out."""
    return is_standard(node) and ("Sequence" in node.op or "Optional" in node.op) and node.op != "ReverseSequence"


def touches_float32(node: gs.Node, shapes: Shapes) -> bool:
    """Whether a node reads or writes a tensor of float32."""
    return any(t.name and shapes.dtype(t) == np.float32 for t in [*node.inputs, *node.outputs])


def is_indifferent(node: gs.Node, shapes: Shapes) -> bool:
    """Whether a node reads floats of any type and writes none."""
    if not is_standard(node) or node.op not in INDIFFERENT:
        return False
    return not any(shapes.dtype(t) == np.float32 for t in node.outputs)


_BY_ELEMENT: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "float": np.dtype(np.float32),
        "double": np.dtype(np.float64),
        **{
            name: np.dtype(name)
            for name in ("float16", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
        },
    }
)

ELEMENT_TYPES: Mapping[str, int] = MappingProxyType(
    {"float16": int(onnx.TensorProto.FLOAT16), "bfloat16": int(onnx.TensorProto.BFLOAT16)}
)
"""ONNX element types by name."""


def infer_types(model: Model, bench: Workbench) -> Shapes:
    """Shapes and types of all tensors; those that onnx cannot tell are asked of ONNX Runtime, in the main graph."""
    shapes = infer_shapes(model)
    unknown = {t.name: t for n in model.graph.nodes for t in n.outputs if t.name and shapes.dtype(t) is None}
    if not unknown:
        return shapes
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        part = cut(read_model(path), list(unknown)).SerializeToString()
        with Runner(part, threads=bench.threads, optimise="none", weights_folder=Path(folder)) as runner:
            types = dict(runner.output_types)
    for name, tensor in unknown.items():
        element = types[name].removeprefix("tensor(").removesuffix(")")
        if (dtype := _BY_ELEMENT.get(element)) is not None:
            shapes.known[id(tensor)] = (tensor, dtype, shapes.shape(tensor))
    return shapes
