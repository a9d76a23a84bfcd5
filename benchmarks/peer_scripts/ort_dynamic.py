"""Quantize a model by onnxruntime.quantization.quantize_dynamic, prepared as its documentation says."""

from __future__ import annotations

from measure import Job, Meter
from onnxruntime.quantization import QuantType, quantize_dynamic
from ort_prepare import prepared

job = Job.read()
meter = Meter(job)
source, notes = prepared(job)
quantize_dynamic(source, job.target, weight_type=QuantType.QInt8, per_channel=True)
meter.report(["onnxruntime", "onnx"], notes=notes)
