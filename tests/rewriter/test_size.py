"""The size of a model is known without writing it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.model import Model
from onnxpress.rewriter.size import saved_size


@pytest.fixture
def model() -> Model:
    weights = [np.ones((64, 300), np.float32), np.ones((300, 700), np.float32), np.ones((700, 1), np.float32)]
    names = ["x", "h", "k", "y"]
    nodes = [helper.make_node("MatMul", [names[k], f"w{k}"], [names[k + 1]]) for k in range(3)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(array, f"w{k}") for k, array in enumerate(weights)],
    )
    return Model.from_proto(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("external", [False, True])
def test_is_what_saving_writes(model, tmp_path, external):
    model.external = external
    assert saved_size(model) == model.save(tmp_path / "model.onnx")


def test_computes_no_weight(model):
    def never() -> np.ndarray:
        raise AssertionError("computed")

    before = saved_size(model)
    model.replace_weight(model.constants()[1], never)
    assert saved_size(model) == before


def test_leaves_the_model_as_it_was(model):
    model.external = True
    before = model.to_proto()
    saved_size(model)
    assert model.to_proto() == before
    onnx.checker.check_model(model.to_proto())
