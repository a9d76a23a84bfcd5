"""Quantize a model by onnxruntime.quantization.quantize_static, prepared as its documentation says.

Options: `method` (a name of CalibrationMethod), `reduce_range`.
"""

from __future__ import annotations

import numpy as np
from measure import Job, Meter
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from ort_prepare import prepared


class Reader(CalibrationDataReader):
    """The batches of a job, read from disk as they are asked for."""

    def __init__(self, job: Job) -> None:
        self._batches = job.batches()

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._batches, None)


job = Job.read()
meter = Meter(job)
source, notes = prepared(job)
quantize_static(
    source,
    job.target,
    Reader(job),
    quant_format=QuantFormat.QDQ,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
    per_channel=True,
    reduce_range=job.options["reduce_range"],
    calibrate_method=CalibrationMethod[job.options["method"]],
)
meter.report(["onnxruntime", "onnx"], notes=notes)
