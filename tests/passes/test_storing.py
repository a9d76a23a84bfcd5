"""Values in the type of the constant that they replace."""

import numpy as np
import pytest

from onnxpress.passes.selection import RefusalError
from onnxpress.passes.storing import narrowed


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gives_the_nearest_values(dtype):
    wide = np.linspace(-3, 3, 7).reshape(7, 1) / 3
    found = narrowed(wide, np.dtype(dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wide.astype(np.float64 if dtype == np.float64 else np.float32).astype(dtype))


@pytest.mark.parametrize(("value", "dtype"), [(70000.0, "float16"), (1e39, "float32"), (np.nan, "float64")])
def test_refuses_what_the_type_cannot_hold(value, dtype):
    with pytest.raises(RefusalError, match=f"the new bias does not fit into {dtype}"):
        narrowed(np.array([1.0, value]), np.dtype(dtype), what="bias")
