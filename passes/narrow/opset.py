"""Which opset a model needs for 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from onnxpress.calibration.providers import provider_name
from onnxpress.passes.kernels.narrow import Format
from onnxpress.passes.narrow.formats import BFLOAT16
from onnxpress.passes.narrow.kernels import runs
from onnxpress.passes.narrow.types import ELEMENT_TYPES, is_standard
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.walk import nodes

BASIC = 13
"""The first opset in which Cast, Gather, MatMul and the arithmetic know bfloat16."""

LAYERS = {"Conv": 2, "ConvTranspose": 2, "LSTM": 3, "GRU": 3, "RNN": 3, "GlobalAveragePool": 1, "AveragePool": 1}
"""Operators worth a newer opset, with the number of their inputs."""

_ATTRIBUTES: dict[str, dict[str, object]] = {
    "LSTM": {"hidden_size": 4},
    "GRU": {"hidden_size": 4},
    "RNN": {"hidden_size": 4},
    "AveragePool": {"kernel_shape": [2, 2]},
}


def raise_for(model: Model, kind: Format, report: Report, *, providers: Sequence[str] = ()) -> None:
    """Raise the opset of a model as far as bfloat16 needs it; float16 needs nothing.

    Args:
        model: is converted.
        kind: the format.
        report: is told.
        providers: that are to compute in it; none where weights are only stored.

    Raises:
        ModelError: opset 13 cannot be reached, without which nothing can be stored.
    """
    if kind is not BFLOAT16:
        return
    old = model.opset
    if raise_opset(model, BASIC):
        report.change("graph", f"opset {old} became {BASIC}, the first with bfloat16")
    if not providers or (wanted := max(_wanted(model, provider_name(providers[0])), default=0)) <= model.opset:
        return
    old = model.opset
    try:
        raise_opset(model, wanted)
    except ModelError as error:
        report.skip("graph", f"convolutions and recurrent layers stay float32: {error}")
        return
    report.change("graph", f"opset {old} became {wanted}, the first with bfloat16 for all of its layers")


def _wanted(model: Model, provider: str) -> Iterator[int]:
    """The opsets that bring layers of the model in bfloat16, where the provider has them."""
    present = {str(node.op) for _, node in nodes(model.graph) if is_standard(node)}
    for op in sorted(present & LAYERS.keys()):
        version = next((v for v in range(BASIC, onnx.defs.onnx_opset_version() + 1) if _allows(op, v)), 0)
        if version > model.opset and runs(_alone(op, version), provider):
            yield version


def _allows(op: str, version: int) -> bool:
    schema = onnx.defs.get_schema(op, version, "")
    return any("tensor(bfloat16)" in each.allowed_type_strs for each in schema.type_constraints)


def _alone(op: str, version: int) -> bytes:
    """A model of one node, in bfloat16."""
    low = ELEMENT_TYPES[BFLOAT16.name]
    names = [f"i{index}" for index in range(LAYERS[op])]
    node = onnx.helper.make_node(op, names, ["y"])
    node.attribute.extend(onnx.helper.make_attribute(*each) for each in _ATTRIBUTES.get(op, {}).items())
    inputs = [onnx.helper.make_tensor_value_info(name, low, None) for name in names]
    graph = onnx.helper.make_graph([node], "alone", inputs, [onnx.ValueInfoProto(name="y")])
    opsets = [onnx.helper.make_opsetid("", version)]
    return bytes(onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())
