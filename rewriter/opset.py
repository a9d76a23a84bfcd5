"""Bring a model to a newer opset where a pass needs an operator that its own lacks."""

from __future__ import annotations

import onnx
import onnx.version_converter

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.weights import Produced, values_of


def raise_opset(model: Model, version: int) -> bool:
    """Convert the standard operators to opset `version`; newer models stay as they are.

    Works on the skeleton, so weights are not touched; sparse initializers become dense.

    Returns:
        Whether anything was converted.

    Raises:
        ModelError: onnx has no adapter for some operator of the model.
    """
    if model.opset >= version:
        return False
    for constant in model.sparse_weights():  # the converter does not see them
        values = values_of(constant)
        model.replace_weight(constant, Produced(values.shape, values.dtype, values.load))
    skeleton = model.skeleton()
    try:
        converted = onnx.version_converter.convert_version(skeleton.proto, version)
    except Exception as error:  # the converter raises whatever its C++ side throws
        raise ModelError(
            f"cannot raise opset {model.opset} to {version}, export the model with that: {_first_line(error)}"
        ) from error
    _restore(skeleton.proto, converted, version)
    least = onnx.helper.find_min_ir_version_for(list(converted.opset_import), ignore_unknown=True)
    converted.ir_version = max(converted.ir_version, least)
    skeleton.proto.CopyFrom(converted)
    model.reset(skeleton)
    return True


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _restore(before: onnx.ModelProto, after: onnx.ModelProto, version: int) -> None:
    """Put back what the converter drops: local functions, metadata and quantization annotations."""
    if not after.functions:
        after.functions.extend(before.functions)
    for function in after.functions:
        if function.domain == DECODING_DOMAIN:  # of operators that never changed; their version must be the model's
            for opset in function.opset_import:
                opset.version = version if opset.domain in DEFAULT_DOMAINS else opset.version
    nodes = {node.output[0]: node for node in before.graph.node if node.output}
    pairs = [(nodes[node.output[0]], node) for node in after.graph.node if node.output and node.output[0] in nodes]
    for old, new in [(before, after), (before.graph, after.graph), *pairs]:
        if not new.metadata_props:
            new.metadata_props.extend(old.metadata_props)
    if not after.graph.quantization_annotation:
        after.graph.quantization_annotation.extend(before.graph.quantization_annotation)
