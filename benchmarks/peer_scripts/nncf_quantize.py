"""Quantize a model by NNCF's post-training quantization.

Options: `model_type` (`transformer` or none), `fast_bias_correction`.
"""

from __future__ import annotations

import nncf
import onnx
from measure import Job, Meter

job = Job.read()
meter = Meter(job)
kind = job.options["model_type"]
quantized = nncf.quantize(
    onnx.load(job.source),
    nncf.Dataset(list(job.batches())),
    subset_size=len(job.files()),
    model_type=nncf.ModelType(kind) if kind else None,
    fast_bias_correction=job.options["fast_bias_correction"],
)
onnx.save(quantized, job.target)
meter.report(["nncf", "onnx", "onnxruntime"])
