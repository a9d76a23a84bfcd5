import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.separable import FactorizeSeparable


@pytest.fixture
def conv(build):
    """A convolution that is a sum of two depthwise-separable ones."""
    rng = np.random.default_rng(0)
    kernel = np.einsum("ois,isab->oiab", rng.standard_normal((12, 6, 2)), rng.standard_normal((6, 2, 3, 3)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", strides=[2, 2])
    return build([node], {"w": kernel.astype(np.float32)}, x=(1, 6, 9, 9))


def test_finds_the_terms_that_the_kernel_has(conv):
    result = FactorizeSeparable(energy=0.99999)(conv)
    (change,) = result.report.changes
    assert change.action.startswith("rank 2 of 9, ")
    assert change.error < 1e-5  # float32
    depthwise, pointwise = result.model.graph.nodes
    assert (depthwise.attrs["group"], depthwise.attrs["strides"]) == (6, [2, 2])
    assert (pointwise.attrs["kernel_shape"], pointwise.attrs["strides"]) == ([1, 1], [1, 1])


def test_the_number_of_terms_is_not_rounded(conv):
    (change,) = FactorizeSeparable(ratio=0.5, round_to=8)(conv).report.changes
    assert change.action.startswith("rank 2 of 9, ")


def test_what_is_depthwise_stays(build):
    weights = {"w": np.ones((6, 1, 3, 3), np.float32)}
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], group=6)], weights, x=(1, 6, 9, 9))
    (skip,) = FactorizeSeparable(rank=1)(model).report.skips
    assert skip.reason == "reads one channel for each group, so it is depthwise already"
