"""What was computed in float64, in the type of the constant that it replaces."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import RefusalError


def narrowed(wide: Array, dtype: np.dtype[Any], *, what: str = "weight") -> Array:
    """Values in the type that a model stores.

    Args:
        wide: of any float type and shape; not changed.
        dtype: of the constant.
        what: it is, for the reason.

    Raises:
        RefusalError: the type cannot hold them.
    """
    with np.errstate(over="ignore"):
        narrow: Array = wide.astype(np.float64 if dtype == np.float64 else np.float32).astype(dtype)
    if not np.isfinite(narrow).all():
        raise RefusalError(f"the new {what} does not fit into {dtype}")
    return narrow
