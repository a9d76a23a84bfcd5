"""The floating-point types of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import ml_dtypes
import numpy as np

from onnxpress.passes.kernels.narrow import Format

FLOAT16 = Format("float16", np.dtype(np.float16), 11, 65504.0, 2.0**-14)

BFLOAT16 = Format("bfloat16", np.dtype(ml_dtypes.bfloat16), 8, (2 - 2.0**-7) * 2.0**127, 2.0**-126)

FORMATS: Mapping[str, Format] = MappingProxyType({each.name: each for each in (FLOAT16, BFLOAT16)})
"""By name."""
