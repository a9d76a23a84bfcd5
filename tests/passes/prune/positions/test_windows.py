"""How a kernel moves over its input, judged by ONNX Runtime and by all places written out."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.kernels.lattices import Lattice
from onnxpress.passes.prune.positions.windows import Window
from onnxpress.passes.selection import RefusalError

AUTO = ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]


def node_of(build, kernel, **attrs):
    weight = np.ones((1, 1, *kernel), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attrs)
    return build([node], {"w": weight}, x=(1, 1, *(None for _ in kernel)))


@pytest.mark.parametrize("auto", AUTO)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [5, 8])
def test_has_as_many_places_as_onnx_runtime_finds(build, run, auto, stride, size):
    model = node_of(build, (4, 3), strides=[stride, 1], auto_pad=auto)
    window = Window.of(model.graph.nodes[0], (4, 3), (size, 6))
    assert window.places((size, 6)) == run(model, np.ones((1, 1, size, 6), np.float32))[0].shape[2:]


def test_where_a_stride_meets_an_unknown_size_auto_pad_cannot_be_written_out(build):
    node = node_of(build, (3,), strides=[2], auto_pad="SAME_UPPER").graph.nodes[0]
    with pytest.raises(RefusalError, match="size of its input"):
        Window.of(node, (3,), (None,))
    node = node_of(build, (4,), auto_pad="SAME_LOWER").graph.nodes[0]
    window = Window.of(node, (4,), (None,))
    assert (window.before, window.after) == ((2,), (1,))


def seen(window, size):
    """Entries of a line that each position of the kernel reads at each place; beyond the line nothing."""
    (places,) = window.places((size,))
    start = np.arange(places) * window.strides[0] - window.before[0]
    return start[:, np.newaxis] + np.arange(window.kernel[0]) * window.dilations[0]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(draw=st.data())
def test_a_narrowed_window_sees_the_same_at_each_place(draw):
    side, stride, dilation = (draw.draw(st.integers(1, most)) for most in (5, 3, 3))
    before, after, size = (draw.draw(st.integers(least, most)) for least, most in ((0, 3), (0, 3), (1, 12)))
    count = draw.draw(st.integers(1, side))
    step = draw.draw(st.integers(1, max(1, (side - 1) // max(1, count - 1)))) if count > 1 else 1
    start = draw.draw(st.integers(0, side - 1 - (count - 1) * step))
    window = Window((side,), (stride,), (dilation,), (before,), (after,))
    assume(size + before + after >= window.reach[0])
    for known in (size, None):
        narrow = window.narrowed(Lattice((start,), (step,), (count,)), (known,))
        assert narrow.kernel == (count,)
        np.testing.assert_array_equal(
            seen(narrow, size), seen(window, size)[:, start : start + (count - 1) * step + 1 : step]
        )
