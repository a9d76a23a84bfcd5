"""Memory is measured whatever the inputs are called and hold; what is too little to measure gains nothing."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.rewriter.errors import ModelError
from onnxpress.search.memory import LEAST, gain_of, memory_of

CPU = "CPUExecutionProvider"


def model_of(path, kind, names):
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    values = [[helper.make_tensor_value_info(f"{n}{end}", kind, ["n"]) for n in names] for end in ("", "_out")]
    graph = helper.make_graph(nodes, "g", *values)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(made.SerializeToString())
    return path


def test_inputs_may_have_any_name(tmp_path):
    path = model_of(tmp_path / "m.onnx", TensorProto.FLOAT, ["file", "allow_pickle", "a/b"])
    batch = {name: np.zeros(2, np.float32) for name in ("file", "allow_pickle", "a/b")}
    assert memory_of(path, batch, provider=CPU, threads=1) >= 0


def test_inputs_may_be_texts(tmp_path):
    path = model_of(tmp_path / "m.onnx", TensorProto.STRING, ["x"])
    assert memory_of(path, {"x": np.array(["a", "bc"], object)}, provider=CPU, threads=None) >= 0


def test_says_what_does_not_run(tmp_path):
    path = model_of(tmp_path / "m.onnx", TensorProto.FLOAT, ["x"])
    with pytest.raises(ModelError, match=r"the memory of m\.onnx cannot be measured: "):
        memory_of(path, {"y": np.zeros(2, np.float32)}, provider=CPU, threads=1)


def test_next_to_nothing_gains_nothing():
    assert gain_of(200_000, 0) == 1.0
    assert gain_of(8 * LEAST, 2 * LEAST) == 4.0
    assert gain_of(8 * LEAST, 0) == 8.0
