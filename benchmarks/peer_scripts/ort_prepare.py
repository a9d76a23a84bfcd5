"""What ONNX Runtime's documentation asks for before quantization: opset 13, shapes inferred, graph optimised."""

from __future__ import annotations

from pathlib import Path

import onnx
from measure import Job
from onnx.version_converter import convert_version
from onnxruntime.quantization.shape_inference import quant_pre_process

OPSET = 13
"""The first whose DequantizeLinear knows one scale a channel."""


def prepared(job: Job) -> tuple[str, list[str]]:
    """The model to quantize, and remarks on what was done besides, or had to be left out."""
    notes: list[str] = []
    source = _raised(job.source, str(Path(job.target).with_suffix(".raised.onnx")), notes)
    target = str(Path(job.target).with_suffix(".prepared.onnx"))
    try:
        quant_pre_process(source, target)
    except Exception as error:
        return _without_symbols(source, target, [*notes, f"no symbolic shapes ({type(error).__name__})"])
    return target, notes


def _raised(source: str, target: str, notes: list[str]) -> str:
    model = onnx.load(source)
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version >= OPSET:
        return source
    try:
        onnx.save(convert_version(model, OPSET), target)
    except Exception as error:
        notes.append(f"opset {version} could not be raised ({type(error).__name__})")
        return source
    notes.append(f"opset {version} raised to {OPSET}")
    return target


def _without_symbols(source: str, target: str, notes: list[str]) -> tuple[str, list[str]]:
    try:
        quant_pre_process(source, target, skip_symbolic_shape=True)
    except Exception as error:
        return source, [*notes[:-1], f"no quant_pre_process ({type(error).__name__})"]
    return target, notes
