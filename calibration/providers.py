"""Names of ONNX Runtime's execution providers."""

from __future__ import annotations

from collections.abc import Mapping

from onnxpress.rewriter.errors import ConfigError

CPU = "CPUExecutionProvider"

_SHORT_NAMES: Mapping[str, str] = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}


def provider_name(name: str) -> str:
    """The name ONNX Runtime uses: `cuda` -> `CUDAExecutionProvider`; a full name stays.

    Raises:
        ConfigError: no such short name.
    """
    if name.endswith("ExecutionProvider"):
        return name
    if name.lower() not in _SHORT_NAMES:
        raise ConfigError(f"provider {name!r} is unknown; give one of {', '.join(_SHORT_NAMES)}, or its full name")
    return _SHORT_NAMES[name.lower()]


def available_providers() -> tuple[str, ...]:
    """The execution providers the installed ONNX Runtime was built with; their libraries may still be missing."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())
