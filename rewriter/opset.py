"""Bring a model to a newer opset where a pass needs an operator that its own lacks."""

from __future__ import annotations

import onnx
import onnx.version_converter

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model


def raise_opset(model: Model, version: int) -> bool:
    """Convert the standard operators to opset `version`; newer models stay as they are.

    Works on the skeleton, so weights are not touched.

    Returns:
        Whether anything was converted.

    Raises:
        ModelError: onnx has no adapter for some operator of the model.
    """
    if model.opset >= version:
        return False
    skeleton = model.skeleton()
    try:
        converted = onnx.version_converter.convert_version(skeleton.proto, version)
    except Exception as error:  # the converter raises whatever its C++ side throws
        raise ModelError(f"cannot raise opset {model.opset} to {version}: {str(error).splitlines()[0]}") from error
    skeleton.proto.CopyFrom(converted)
    model.reset(skeleton)
    return True
