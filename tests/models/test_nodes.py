import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.models.nodes import Nodes


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


def test_names_results_as_the_exporter_does(nodes: Nodes) -> None:
    assert nodes.add("Relu", ["x"], "/act/Relu") == "/act/Relu_output_0"
    assert nodes.add("Relu", ["x"], "/act/Relu_1", result="y") == "y"


def test_a_constant_is_stored_once(nodes: Nodes) -> None:
    assert nodes.constant("one", np.float32(1)) == nodes.constant("one", np.float32(2)) == "one"
    nodes.add("Mul", ["x", "one"], "/Mul", result="y")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    model = nodes.finish([x], [y])
    assert [onnx.numpy_helper.to_array(each) for each in model.graph.initializer] == [np.float32(1)]


def test_gives_no_broken_model(nodes: Nodes) -> None:
    nodes.add("Relu", ["nothing"], "/Relu", result="y")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    with pytest.raises(onnx.checker.ValidationError):
        nodes.finish([], [y])
