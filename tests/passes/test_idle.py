"""A pass that finds nothing to work on says why."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.idle import WHOLE
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude


def quantized():
    return [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ], {"codes": np.ones((4, 3), np.int8), "scale": np.float32(0.5).reshape(())}


def weightless():
    return [helper.make_node("Relu", ["x"], ["y"])], {}


def lone():
    return [helper.make_node("Mul", ["x", "gain"], ["y"])], {"gain": np.full(4, 2, np.float32)}


@pytest.mark.parametrize("one", [PruneChannels(pruning_ratio=0.5), PruneMagnitude(sparsity=0.5)])
@pytest.mark.parametrize(
    ("model", "reason"),
    [(quantized, "run on the float model"), (weightless, "no float weights"), (lone, "no float weights")],
)
def test_says_what_the_model_lacks(build, one, model, reason):
    nodes, weights = model()
    report = Pipeline([one])(build(nodes, weights, x=("n", 4))).reports[-1]
    assert not report.changes
    assert report.skips
    assert reason in report.skips[0].reason


def test_encoded_weights_are_out_of_reach(build):
    weights = {"w": np.tile(np.float32([1, 2, 3, 4]), (64, 16))}
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 64))
    report = Pipeline([Encode(), PruneMagnitude(sparsity=0.5)])(model).reports[-1]
    assert [(skip.site, "before `encode`" in skip.reason) for skip in report.skips] == [(WHOLE, True)]


def test_a_pass_that_did_something_is_not_idle(build):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = build(nodes, {"w": np.random.default_rng(0).random((64, 16), np.float32)}, x=("n", 64))
    report = Pipeline([PruneMagnitude(sparsity=0.5)])(model).reports[-1]
    assert report.changes
    assert not report.skips
