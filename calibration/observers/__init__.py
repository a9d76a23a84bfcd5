"""Statistics of tensors, gathered batch by batch."""

from onnxpress.calibration.observers.average import MovingAverage
from onnxpress.calibration.observers.base import (
    FloatArray,
    Observer,
    RangeObserver,
    Reducible,
    Reduction,
    Sample,
    Wish,
)
from onnxpress.calibration.observers.histogram import Histogram
from onnxpress.calibration.observers.minmax import MinMax
from onnxpress.calibration.observers.moments import SecondMoment
from onnxpress.calibration.observers.rows import Rows
from onnxpress.calibration.observers.several import Several

__all__ = [
    "FloatArray",
    "Histogram",
    "MinMax",
    "MovingAverage",
    "Observer",
    "RangeObserver",
    "Reducible",
    "Reduction",
    "Rows",
    "Sample",
    "SecondMoment",
    "Several",
    "Wish",
]
