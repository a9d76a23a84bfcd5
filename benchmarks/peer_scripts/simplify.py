"""Simplify a model by onnxsim."""

from __future__ import annotations

import onnx
import onnxsim
from measure import Job, Meter

job = Job.read()
meter = Meter(job)
model, checked = onnxsim.simplify(job.source)
onnx.save(model, job.target)
meter.report(["onnxsim", "onnx"], notes=[] if checked else ["its own check of the result failed"])
