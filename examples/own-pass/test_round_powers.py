"""What the pass changes, what it leaves alone, what it refuses, and that ONNX Runtime runs the result."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from round_powers import RoundPowers, nearest_powers

from onnxpress import Encode, Model, Pipeline
from onnxpress.rewriter.errors import ConfigError


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


@pytest.fixture
def model(weight):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 64), ("y", 32)))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def test_rounds_to_the_nearest():
    rounded = nearest_powers(np.array([4.1, -1.4, 1.6, 0.3, 0.24, 0.0]), levels=4)
    np.testing.assert_array_equal(rounded, [4, -1, 2, 0.5, 0, 0])


def test_changes_the_weight_and_leaves_the_callers_model_alone(model, weight):
    result = RoundPowers()(model)
    (change,) = result.report.changes
    assert change.site == "dense"
    assert 0 < change.error < 0.2
    (constant,) = result.model.constants()
    powers = np.abs(constant.values[constant.values != 0])
    np.testing.assert_array_equal(np.exp2(np.round(np.log2(powers))), powers)
    np.testing.assert_array_equal(model.constants()[0].values, weight)


def test_leaves_a_weight_that_would_change_too_much(model):
    (skip,) = RoundPowers(levels=1, max_error=0.01)(model).report.skips
    assert "above max_error 1.0%" in skip.reason


def test_refuses_an_option_that_means_nothing():
    with pytest.raises(ConfigError, match="round-powers: levels must be a whole number of at least 1, got 0"):
        RoundPowers(levels=0)


def test_the_encoded_result_is_an_eighth_and_runs(model, tmp_path):
    before, path = model.save(tmp_path / "before.onnx"), tmp_path / "after.onnx"
    after = Pipeline([RoundPowers(), Encode()])(model).model.save(path)
    assert after < before / 3  # 4 bits a weight, and the function that decodes them
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, 64), np.float32)})[0].shape == (2, 32)
