"""Outputs judged on samples that are held out."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.share.judging import Whole
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def model(build):
    weight = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    return build(nodes, {"w": weight}, x=["n", 8])


def bench(model, arrays):
    return Workbench(feed=open_feed([{"x": each} for each in arrays], inputs=model.inputs), threads=1)


def scaled(model, factor):
    copy = model.clone()
    (site,) = find_sites(copy)
    copy.replace_weight(site.weight, (factor * site.array()).astype(np.float32))
    return copy


def test_noise_is_that_before_a_softmax(model):
    arrays = np.random.default_rng(1).standard_normal((8, 4, 8)).astype(np.float32)
    whole = Whole(model, bench(model, arrays))
    assert whole.useful
    assert whole.noise(model) == 0
    # centred logits are all a tenth larger
    assert whole.noise(scaled(model, 1.1)) == pytest.approx(0.01, rel=1e-4)


def test_only_samples_that_are_held_out_count(model):
    """A channel that only samples to fit show does not matter."""
    arrays = np.random.default_rng(1).standard_normal((8, 4, 8)).astype(np.float32)
    arrays[[3, 7], :, 0] = 0
    copy = model.clone()
    (site,) = find_sites(copy)
    other = site.array().copy()
    other[0] = np.arange(5)
    copy.replace_weight(site.weight, other)
    assert Whole(model, bench(model, arrays)).noise(copy) == 0
    assert Whole(model, bench(model, arrays[:3])).noise(copy) > 0.1  # too few to hold some out


def test_needs_samples(model):
    with pytest.raises(FeedError, match="--data"):
        Whole(model, Workbench())
