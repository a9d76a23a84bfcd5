"""Blocks that are stacked for the outputs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.diagonals import Map
from onnxpress.passes.structure.stacks import dense_of, fit_diagonals, spans, stacked


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 300), st.integers(1, 80))
def test_every_output_is_of_one_block(out, size):
    blocks, height = stacked((out, size), size)
    parts = [range(out)[each] for each in spans((out, size), size)]
    assert [row for part in parts for row in part] == list(range(out))
    assert len(parts) == blocks
    assert height <= size
    assert all(0 < len(part) <= height for part in parts)
    assert blocks == 1 or out > (blocks - 1) * size  # no fewer would do


def test_each_block_is_fitted_alone(random):
    """With one diagonal between a cut and the identity, the nearest block is that diagonal."""

    def between(height):
        return [Map.cut(5, height).reversed(), Map.cut(5, 5)]

    target = random.standard_normal((12, 5))
    found = fit_diagonals(target, 5, between, lambda: [np.ones(5)], None)
    assert found.shape == (3, 1, 5)
    dense = dense_of(found, (12, 5), between)
    expected = np.concatenate([np.eye(4, 5) * target[at : at + 4] for at in (0, 4, 8)])
    np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-7)  # the systems are damped by 1e-9
