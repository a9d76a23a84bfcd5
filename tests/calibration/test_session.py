"""Sessions: what ran where, and one line for what did not."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError, ProviderError
from onnxpress.rewriter.specs import InputSpec

X = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("optimise", ["none", "basic", "extended", "all"])
def test_runs_a_file_and_its_bytes_alike(linear, optimise):
    with Runner(linear, threads=1, optimise=optimise) as runner, Runner(linear.read_bytes()) as other:
        assert runner.output_names == ("y",)
        assert runner.run({"x": X})["y"].shape == (2, 3)
        # float32 sums of four products, in any order
        np.testing.assert_allclose(runner.run({"x": X})["y"], other.run({"x": X})["y"], rtol=1e-6, atol=1e-6)
    assert (runner.name, other.name) == ("model.onnx", "the model")


def test_tells_what_the_model_declares(save_model):
    path = save_model(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in "abcd"],
        {"a": ["n", None, 3], "b": [], "c": None, "d": [2]},
        ["a_out", "b_out", "c_out", "d_out"],
        types={"b": TensorProto.INT64, "d": TensorProto.STRING},
    )
    for model in (path, path.read_bytes()):
        assert Runner(model).input_specs == (
            InputSpec("a", np.dtype("float32"), ("n", None, 3)),
            InputSpec("b", np.dtype("int64"), ()),
            InputSpec("c", np.dtype("float32"), None),
            InputSpec("d", np.dtype(object), (2,)),
        )


def test_infers_types_and_shapes_of_outputs(linear):
    runner = Runner(linear)
    assert runner.output_types == {"y": "tensor(float)"}
    assert runner.output_shapes == {"y": ("n", 3)}


def test_gives_only_the_outputs_asked_for(save_model):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    runner = Runner(save_model(nodes, {"x": ["n", 4]}, ["a", "b"]))
    assert list(runner.run({"x": X})) == ["a", "b"]
    assert list(runner.run({"x": X}, outputs=["b"])) == ["b"]


def test_takes_what_numpy_makes_an_array_of(save_model):
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"])]
    runner = Runner(save_model(nodes, {"x": [2], "k": []}, ["y"]))
    for k in (np.float32(2), 2.0, np.float64(2)):
        assert runner.run({"x": [1.0, 2.0], "k": k})["y"].tolist() == [2.0, 4.0]


def test_finds_external_data_of_a_model_in_bytes(linear, tmp_path):
    model = onnx.load(linear)
    expected = Runner(linear).run({"x": X})["y"]
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    runner = Runner((tmp_path / "e.onnx").read_bytes(), weights_folder=tmp_path)
    np.testing.assert_array_equal(runner.run({"x": X})["y"], expected)


@pytest.mark.parametrize("file_order", [False, True])
def test_tells_which_nodes_ran_where(save_model, file_order):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    runner = Runner(save_model(nodes, {"x": ["n", 4]}, ["y"]), file_order=file_order)
    assert runner.node_placement({"x": X}) == {"CPUExecutionProvider": {"Relu": 1, "Softmax": 1}}


@pytest.mark.parametrize(
    "call", [lambda runner, batch: runner.run(batch), lambda runner, batch: runner.node_placement(batch)]
)
def test_a_sample_that_cannot_run_is_one_line(linear, call):
    with pytest.raises(FeedError, match=r"model.onnx cannot run this sample: .*Got: 5 Expected: 4") as caught:
        call(Runner(linear), {"x": np.ones((2, 5), np.float32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_what_is_no_model_is_one_line(tmp_path, linear, content):
    path = tmp_path / "bad.onnx"
    for bad in (content, linear.read_bytes()[:60]):
        path.write_bytes(bad)
        for model in (bad, path):
            with pytest.raises(ModelError, match=r"ONNX Runtime cannot load") as caught:
                Runner(model)
            assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"no file .*none.onnx; check the path"):
        Runner(tmp_path / "none.onnx")


def test_refuses_an_input_that_is_no_tensor(save_model):
    sequence = helper.make_value_info("s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None)))
    node = helper.make_node("SequenceLength", ["s"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    graph = helper.make_graph([node], "small", [sequence], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(ModelError, match=r"input 's' of the model is seq\(tensor\(float\)\); only tensors"):
        _ = Runner(model.SerializeToString()).input_specs


def test_a_closed_session_does_not_run(linear):
    runner = Runner(linear)
    runner.close()
    with pytest.raises(ModelError, match="was closed; open it again"):
        runner.run({"x": X})


def test_refuses_a_provider_that_is_not_built_in(linear):
    with pytest.raises(ProviderError, match="QNNExecutionProvider cannot be had: this ONNX Runtime was built without"):
        Runner(linear, providers=["qnn", "cpu"])


def test_refuses_a_provider_that_was_replaced(linear, monkeypatch):
    """As on a machine with onnxruntime-gpu and without its CUDA libraries."""
    real = onnxruntime.InferenceSession
    built_in = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_in)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: real(model, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ProviderError, match="runs on CPUExecutionProvider in its place; install onnxruntime-gpu"):
        Runner(linear, providers=["cuda"])


@pytest.mark.cuda
def test_runs_on_cuda_and_says_so(linear):
    runner = Runner(linear, providers=["cuda"])
    # TensorFloat-32 products carry 10 bits of mantissa.
    np.testing.assert_allclose(runner.run({"x": X})["y"], Runner(linear).run({"x": X})["y"], rtol=2e-3, atol=2e-3)
    assert runner.node_placement({"x": X})["CUDAExecutionProvider"]["MatMul"] == 1


def test_refuses_no_threads(linear):
    with pytest.raises(ConfigError, match="threads 0: give 1 or more"):
        Runner(linear, threads=0)


def test_importing_calibration_stays_light():
    code = (
        "import sys, onnxpress.calibration.feeds, onnxpress.calibration.metrics, onnxpress.calibration.stream\n"
        "import onnxpress.calibration.synthetic\n"
        "print([name for name in ('onnx', 'onnxruntime', 'scipy', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
