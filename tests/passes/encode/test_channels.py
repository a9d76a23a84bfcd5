"""Books of channels: bit for bit what the weight was, in the bits of its codes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.encode.books import split
from onnxpress.passes.encode.channels import MOST_LEVELS
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.rewriter.sites import find_sites


def by_channel(shape, levels, axis=0, dtype=np.float32, seed=0):
    """A weight whose channels have `levels` values of their own."""
    random = np.random.default_rng(seed)
    books = random.standard_normal((shape[axis], levels)).astype(dtype)
    codes = random.integers(0, levels, (shape[axis], int(np.prod(shape)) // shape[axis]))
    rows = np.take_along_axis(books, codes, axis=1)
    others = [size for at, size in enumerate(shape) if at != axis]
    return np.moveaxis(rows.reshape(shape[axis], *others), 0, axis)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 2), st.integers(0, 9), st.sampled_from(["f2", "f4", "f8"]))
def test_comes_back_bit_for_bit(channels, levels, axis, seed, dtype):
    shape = [6, 50, 3]
    shape[axis] = channels
    weight = by_channel(tuple(shape), levels, axis, np.dtype(dtype), seed)
    weight[weight > 1] = -0.0
    if (parts := split(weight)) is not None:
        assert parts.restore().tobytes() == weight.tobytes()
        assert parts.books.shape[0] <= MOST_LEVELS


@pytest.mark.parametrize("axis", [0, 1])
def test_finds_the_axis_of_the_channels(axis):
    weight = by_channel((300, 400), 2, axis)
    parts = split(weight)
    assert (parts.axis, parts.books.shape) == (axis, (2, weight.shape[axis]))
    np.testing.assert_array_equal(parts.restore(), weight)


def test_zeros_have_the_code_zero():
    weight = by_channel((64, 500), 2)
    weight[np.random.default_rng(1).random(weight.shape) < 0.7] = 0
    np.testing.assert_array_equal(split(weight).codes == 0, weight == 0)


@pytest.mark.parametrize(
    "weight",
    [
        np.random.default_rng(0).standard_normal((40, 90)).astype(np.float32),  # too many values
        np.random.default_rng(0).choice(np.float32([1, 2]), (40, 90)),  # one book for all is as good
        np.where(np.arange(90) < 45, np.float32([[1], [2]]), np.float32(2)),  # and where channels have part of it
        by_channel((40, 90), MOST_LEVELS + 1),
        by_channel((40, 2), 2),
        np.ones(50, np.float32),
        np.zeros((0, 3), np.float32),
        np.ones((40, 90), np.int8),
    ],
    ids=["noise", "one book", "parts", "levels", "short", "vector", "empty", "integers"],
)
def test_leaves_what_it_would_not_make_smaller(weight):
    assert split(weight) is None


@pytest.mark.parametrize(("op", "shape", "axis"), [("MatMul", (600, 300), 1), ("Conv", (256, 64, 3, 3), 0)])
def test_onnx_runtime_decodes_it_while_it_loads(build, run, op, shape, axis, tmp_path):
    weight = by_channel(shape, 2, axis)
    x = (1, 600) if op == "MatMul" else (1, 64, 5, 5)
    model = build([helper.make_node(op, ["x", "w"], ["y"], name="layer")], {"w": weight}, x=x)
    result = Encode()(model)
    assert result.model.save(tmp_path / "small.onnx") < weight.size / 8 + 8 * shape[axis] + 2000
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    given = np.random.default_rng(2).standard_normal(x).astype(np.float32)
    np.testing.assert_array_equal(run(result.model, given)[0], run(model, given)[0])
    assert [change.action for change in result.report.changes] == ["2 values a channel", "codes of 1 bit"]
    assert [change.site for change in result.report.changes] == ["layer", "layer (codes)"]
    decoded = find_sites(decode(result.model).model)[0].array()
    assert decoded.tobytes() == weight.tobytes()


def test_does_not_touch_what_is_encoded_already(build):
    weight = by_channel((600, 300), 2, 1)
    once = Encode()(build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=(1, 600))).model
    assert not Encode()(once).report.changes
